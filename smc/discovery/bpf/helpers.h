/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What discovery.bpf.c takes from the kernel beyond <linux/bpf.h>: sections, map definitions, and the helpers by their
 * numbers, as libbpf's bpf_helpers.h declares them. Written out so that a compiler and the kernel's headers are all
 * that a build needs.
 *
 * Invariant: only helpers that a program under any licence may call.
 */
#ifndef HELPERS_H
#define HELPERS_H

#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline)) inline

/* Writes one field of a context: two that are neighbours must not become one store, which the kernel refuses. */
#define WRITE(field, value) (*(volatile __typeof__(field) *)&(field) = (value))

/* A map's definition is a struct whose members carry numbers in array types and types in pointers (BTF). */
#define NUMBER(name, value) int(*name)[value]
#define TYPE(name, type) type *name

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) =
	(void *)BPF_FUNC_map_update_elem;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static void *(*const bpf_sk_storage_get)(void *map, void *sk, void *value, __u64 flags) =
	(void *)BPF_FUNC_sk_storage_get;
static __u64 (*const bpf_get_netns_cookie)(void *ctx) = (void *)BPF_FUNC_get_netns_cookie;
static long (*const bpf_setsockopt)(void *sk_or_ctx, int level, int name, void *value, int len) =
	(void *)BPF_FUNC_setsockopt;
static long (*const bpf_getsockopt)(void *sk_or_ctx, int level, int name, void *value, int len) =
	(void *)BPF_FUNC_getsockopt;
static long (*const bpf_sock_ops_cb_flags_set)(struct bpf_sock_ops *ops, int flags) =
	(void *)BPF_FUNC_sock_ops_cb_flags_set;
static long (*const bpf_load_hdr_opt)(struct bpf_sock_ops *ops, void *option, __u32 len, __u64 flags) =
	(void *)BPF_FUNC_load_hdr_opt;
static long (*const bpf_store_hdr_opt)(struct bpf_sock_ops *ops, const void *option, __u32 len, __u64 flags) =
	(void *)BPF_FUNC_store_hdr_opt;
static long (*const bpf_reserve_hdr_opt)(struct bpf_sock_ops *ops, __u32 len, __u64 flags) =
	(void *)BPF_FUNC_reserve_hdr_opt;

#endif
