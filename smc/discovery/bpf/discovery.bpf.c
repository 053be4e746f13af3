// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * SMC's TCP option for sockets that ask for it: written into their SYN and SYN-ACK, and looked for in the peer's.
 *
 * Invariant: a segment carries the option only on behalf of a marked socket, and a SYN-ACK only if the SYN did; so a
 * client that finds it in the SYN-ACK talks to somebody who expects SMC's handshake.
 *
 * Three programs on one cgroup:
 *   sockops   writes and reads the option while TCP connects
 *   set       setsockopt(DISCOVERY_LEVEL, DISCOVERY_MARK): "this socket speaks SMC", by its unprivileged owner
 *   get       getsockopt(DISCOVERY_LEVEL, DISCOVERY_STATE): what is known of the socket's peer
 *
 * What is not ours passes through: no return code, reply or option of anybody else is changed.
 * smc/discovery/src/sockopt.rs has the same numbers, and a test compares them.
 */
#include "helpers.h"

#define DISCOVERY_LEVEL 0x534d4364 /* "SMCd"; no protocol's */
#define DISCOVERY_MARK 1
#define DISCOVERY_STATE 2

/* A socket's state, as DISCOVERY_STATE returns it. */
#define MARKED 0x1u    /* its owner speaks SMC */
#define OFFERED 0x2u   /* its SYN carried the option */
#define PEER 0x4u      /* the peer's SYN or SYN-ACK carried it */
#define CONNECTED 0x8u /* TCP is established: PEER will not change */
#define LISTED 0x10u   /* it is in `listeners` */
/* What of tcp_sock's callback flags somebody else had set before us, and so is not ours to clear. */
#define FOREIGN_WRITE 0x100u
#define FOREIGN_STATE 0x200u

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define SOL_TCP 6
#define TCP_SAVE_SYN 27

#define FLAG_SYN 0x02
#define FLAG_ACK 0x10

#define KIND 254
#define OPTION_LEN 6
#define LONGEST_OPTION 40 /* all of TCP's options together */
#define OPTION { KIND, OPTION_LEN, 0xe2, 0xd4, 0xc3, 0xd9 }

/* setsockopt and getsockopt of more than this reach a program only in part; 0 as its length leaves them alone. */
#define LONGEST_OPTVAL 4096

struct {
	NUMBER(type, BPF_MAP_TYPE_SK_STORAGE);
	NUMBER(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE); /* accepted sockets begin with their listener's state */
	TYPE(key, int);
	TYPE(value, __u32);
} sockets SEC(".maps");

/*
 * Where marked sockets listen, and how many. When a SYN-ACK is made the listener itself cannot be reached, and that its
 * WRITE_HDR_OPT flag is set proves nothing: another program may have set it, or an earlier run of this one.
 */
struct place {
	__u64 netns;
	__u32 address[4]; /* network order, IPv4 as ::ffff:a.b.c.d, any of both families as :: */
	__u32 port;       /* host order */
	__u32 zero;       /* keys are compared with their padding */
};

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	NUMBER(max_entries, 65536);
	TYPE(key, struct place);
	TYPE(value, __u32);
} listeners SEC(".maps");

INLINE void set_address(struct place *place, __u32 family, __u32 v4, __u32 a, __u32 b, __u32 c, __u32 d)
{
	if (family == AF_INET6) {
		place->address[0] = a;
		place->address[1] = b;
		place->address[2] = c;
		place->address[3] = d;
	} else if (v4) {
		place->address[2] = __builtin_bswap32(0xffff);
		place->address[3] = v4;
	}
}

INLINE int list(const struct place *place)
{
	__u32 one = 1, *count = bpf_map_lookup_elem(&listeners, place);

	if (count) {
		__sync_fetch_and_add(count, 1);
		return 1;
	}
	return bpf_map_update_elem(&listeners, place, &one, BPF_ANY) == 0;
}

/* A listener that is listed between the count's end and the deletion goes unlisted: it stays with TCP. */
INLINE void unlist(const struct place *place)
{
	__u32 *count = bpf_map_lookup_elem(&listeners, place);

	if (count && __sync_fetch_and_add(count, -1) == 1)
		bpf_map_delete_elem(&listeners, place);
}

/* ---- the TCP option ---- */

INLINE struct place place_of(struct bpf_sock_ops *ops)
{
	struct place place = { .netns = bpf_get_netns_cookie(ops), .port = ops->local_port };

	set_address(&place, ops->family, ops->local_ip4, ops->local_ip6[0], ops->local_ip6[1], ops->local_ip6[2],
		    ops->local_ip6[3]);
	return place;
}

/* The state of a marked socket, or NULL. */
INLINE __u32 *marked(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	__u32 *state;

	if (!sk || !ops->is_fullsock)
		return 0;
	state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	return state && (*state & MARKED) ? state : 0;
}

INLINE void want_callbacks(struct bpf_sock_ops *ops, __u32 *state, int flags)
{
	int had = ops->bpf_sock_ops_cb_flags;

	*state |= (had & BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG ? FOREIGN_WRITE : 0) |
		  (had & BPF_SOCK_OPS_STATE_CB_FLAG ? FOREIGN_STATE : 0);
	bpf_sock_ops_cb_flags_set(ops, had | flags);
}

/* Ends the callbacks that `want_callbacks` asked for, here or (inherited) on the listener. */
INLINE void end_callbacks(struct bpf_sock_ops *ops, __u32 state)
{
	int ours = (state & FOREIGN_WRITE ? 0 : BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG) |
		   (state & FOREIGN_STATE ? 0 : BPF_SOCK_OPS_STATE_CB_FLAG);

	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags & ~ours);
}

/* Whether the SYN (flags BPF_LOAD_HDR_OPT_TCP_SYN) or the segment at hand (0) carries the option. */
INLINE int carried(struct bpf_sock_ops *ops, __u64 flags)
{
	__u8 option[LONGEST_OPTION] = OPTION;
	long len = bpf_load_hdr_opt(ops, option, sizeof(option), flags);

	return len >= OPTION_LEN && len % 2 == 0; /* what Linux takes: tcp_parse_options */
}

/* Whether the SYN-ACK at hand may say so: the listener is marked, and the SYN carried the option. */
INLINE int answers(struct bpf_sock_ops *ops)
{
	struct place place;

	/* A SYN cookie leaves nobody who remembers. */
	if (ops->args[0] == BPF_WRITE_HDR_TCP_SYNACK_COOKIE || !carried(ops, BPF_LOAD_HDR_OPT_TCP_SYN))
		return 0;
	place = place_of(ops);
	if (bpf_map_lookup_elem(&listeners, &place))
		return 1;
	__builtin_memset(place.address, 0, sizeof(place.address));
	return bpf_map_lookup_elem(&listeners, &place) != 0;
}

/* Whether the segment at hand is to carry the option; `state` is its socket's, if that is marked. */
INLINE int carries(struct bpf_sock_ops *ops, const __u32 *state)
{
	switch (ops->skb_tcp_flags & (FLAG_SYN | FLAG_ACK)) {
	case FLAG_SYN:
		return state != 0;
	case FLAG_SYN | FLAG_ACK:
		return !ops->is_fullsock && answers(ops); /* never when both ends connect at once */
	default:
		return 0;
	}
}

INLINE void write_option(struct bpf_sock_ops *ops)
{
	__u8 option[OPTION_LEN] = OPTION;
	__u32 *state = marked(ops);

	/* It fails if the option is there already, by a second run of these programs: then that knows. */
	if (carries(ops, state) && bpf_store_hdr_opt(ops, option, sizeof(option), 0) == 0 && state)
		*state |= OFFERED;
}

INLINE void begin_listening(struct bpf_sock_ops *ops)
{
	struct place place;
	int save = 0, one = 1;
	__u32 *state = marked(ops);

	if (!state)
		return;
	/*
	 * The SYN is looked at again for a SYN-ACK that is sent again, and when the connection stands. So it is saved before
	 * one is answered.
	 */
	if (bpf_getsockopt(ops, SOL_TCP, TCP_SAVE_SYN, &save, sizeof(save)) == 0 && !save)
		bpf_setsockopt(ops, SOL_TCP, TCP_SAVE_SYN, &one, sizeof(one));
	place = place_of(ops);
	*state |= LISTED; /* before: who is answered has its state */
	if (!list(&place)) {
		*state &= ~LISTED;
		return;
	}
	want_callbacks(ops, state, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG);
}

INLINE void end_listening(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct place place;
	__u32 *state;

	if (!sk)
		return;
	state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!state || !(*state & LISTED))
		return;
	*state &= ~LISTED;
	place = place_of(ops);
	unlist(&place);
	end_callbacks(ops, *state);
}

SEC("sockops")
int discovery_sockops(struct bpf_sock_ops *ops)
{
	__u32 *state;

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		state = marked(ops);
		if (state) {
			*state = MARKED; /* the socket may have been connected before */
			want_callbacks(ops, state, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
		}
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		begin_listening(ops);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[0] == BPF_TCP_LISTEN)
			end_listening(ops);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		if (carries(ops, marked(ops)))
			bpf_reserve_hdr_opt(ops, OPTION_LEN, 0); /* TCP pads it with NOPs */
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		write_option(ops);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		state = marked(ops);
		if (state) {
			if ((*state & OFFERED) && carried(ops, 0))
				*state |= PEER;
			*state |= CONNECTED;
			end_callbacks(ops, *state | FOREIGN_STATE);
		}
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		state = marked(ops);
		if (state) {
			int heard = (*state & LISTED) && carried(ops, BPF_LOAD_HDR_OPT_TCP_SYN);

			end_callbacks(ops, *state);
			*state = MARKED | CONNECTED | (heard ? PEER : 0);
		}
		break;
	}
	return 1; /* ops->reply stays as it was */
}

/* ---- the private socket options ---- */

/*
 * Makes a socket that listens already (inherited, or passed by an init system) a marked listener. Its callback flags can
 * be set from here since Linux 6.12; before, it stays with TCP.
 */
INLINE void mark_listener(struct bpf_sockopt *ctx, struct bpf_sock *sk, __u32 *state)
{
	struct place place = { .netns = bpf_get_netns_cookie(ctx), .port = sk->src_port };
	int had = 0, flags, save = 0, one = 1;

	if (*state & LISTED)
		return;
	if (bpf_getsockopt(sk, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &had, sizeof(had)))
		return;
	flags = had | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG;
	if (bpf_setsockopt(sk, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags)))
		return;
	/* SYNs come meanwhile: one that is answered must have been saved. */
	if (bpf_getsockopt(sk, SOL_TCP, TCP_SAVE_SYN, &save, sizeof(save)) == 0 && !save)
		bpf_setsockopt(sk, SOL_TCP, TCP_SAVE_SYN, &one, sizeof(one));
	set_address(&place, sk->family, sk->src_ip4, sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]);
	*state |= LISTED; /* before: who is answered has its state */
	if (!list(&place))
		*state &= ~LISTED;
}

INLINE void unmark_listener(struct bpf_sockopt *ctx, struct bpf_sock *sk, __u32 *state)
{
	struct place place = { .netns = bpf_get_netns_cookie(ctx), .port = sk->src_port };

	if (!(*state & LISTED))
		return;
	*state &= ~LISTED;
	set_address(&place, sk->family, sk->src_ip4, sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]);
	unlist(&place);
}

INLINE int is_tcp(struct bpf_sock *sk)
{
	return sk && sk->protocol == IPPROTO_TCP && (sk->family == AF_INET || sk->family == AF_INET6);
}

INLINE int pass(struct bpf_sockopt *ctx)
{
	if (ctx->optlen > LONGEST_OPTVAL)
		ctx->optlen = 0; /* Linux before 6.5 takes anything else for a fault */
	return 1;
}

SEC("cgroup/setsockopt")
int discovery_set(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	__u32 *value = ctx->optval, *state;

	if (ctx->level != DISCOVERY_LEVEL || ctx->optname != DISCOVERY_MARK)
		return pass(ctx);
	if (!is_tcp(sk) || (void *)(value + 1) > ctx->optval_end || *value > 1)
		return pass(ctx); /* the kernel's ENOPROTOOPT */
	state = bpf_sk_storage_get(&sockets, sk, 0, *value ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (!state && *value)
		return pass(ctx);
	if (*value) {
		*state |= MARKED;
		if (sk->state == BPF_TCP_LISTEN)
			mark_listener(ctx, sk, state);
	} else if (state) {
		unmark_listener(ctx, sk, state);
		*state &= ~MARKED;
	}
	ctx->optlen = -1; /* done: the kernel's own setsockopt is left out */
	return 1;
}

SEC("cgroup/getsockopt")
int discovery_get(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	__u32 *value = ctx->optval, *state, known;

	if (ctx->level != DISCOVERY_LEVEL || ctx->optname != DISCOVERY_STATE)
		return pass(ctx);
	if (!is_tcp(sk) || (void *)(value + 1) > ctx->optval_end)
		return pass(ctx);
	state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	known = ctx->retval ? 0 : *value; /* by a second run of these programs: the kernel does not know the option */
	*value = known | (state ? *state & 0xff : 0);
	WRITE(ctx->optlen, sizeof(*value));
	WRITE(ctx->retval, 0);
	return 1;
}

char LICENSE[] SEC("license") = "Apache-2.0 OR BSD-3-Clause";
