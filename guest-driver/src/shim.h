/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the C half of the virtio-ism driver and its Rust half call of each other.
 *
 * The C half owns the kernel's objects (locks, timers, works, queues, tables); the Rust half owns
 * every decision. Rust sees struct ism only as a pointer. src/ffi.rs repeats these prototypes.
 */
#ifndef VIRTIO_ISM_SHIM_H
#define VIRTIO_ISM_SHIM_H

#include <linux/completion.h>
#include <linux/dibs.h>
#include <linux/hrtimer.h>
#include <linux/mutex.h>
#include <linux/semaphore.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/workqueue.h>

/* As in spec/abi: queue numbers are also indices here. */
#define ISM_QUEUES	4
/* DMB indices of a device; dibs asks for it without naming a device. */
#define ISM_MAX_DMBS	4096
/* Control requests in flight. */
#define ISM_SLOTS	8

/* Spinlocks of the Rust half, all taken with interrupts off. */
enum ism_spin {
	ISM_SPIN_CONTROL,
	ISM_SPIN_EVENTS,
	ISM_SPIN_LOCAL,
	ISM_SPIN_GRANTS,
	ISM_SPIN_SIGNALS,
	ISM_SPIN_MOVES,
	ISM_SPIN_PEERS,
	ISM_SPIN_VLANS,
	ISM_SPIN_POLL,
	ISM_SPINS
};

enum ism_work {
	ISM_WORK_WATCHDOG,	/* asks a silent device for a sign of life */
	ISM_WORK_RESCAN,	/* looks for signals that got lost */
	ISM_WORK_REAP,		/* finishes what had to wait */
	ISM_WORK_VLAN,		/* tells the device of VLANs */
	ISM_WORK_HELD,		/* sends messages that were held back */
	ISM_WORK_BURY,		/* takes a dead device away from dibs */
	ISM_WORKS
};

struct ism_work_item {
	struct delayed_work work;
	struct ism *ism;
};

struct ism {
	struct virtio_device *vdev;
	struct dibs_dev __rcu *dibs;	/* the last one, in dibs or not; NULL at first */
	struct mutex dibs_mutex;	/* guards dibs_added */
	bool dibs_added;
	struct virtqueue *vq[ISM_QUEUES];
	bool has_queues;
	void *rust;

	spinlock_t spin[ISM_SPINS];
	struct mutex admin;
	struct completion answered[ISM_SLOTS];
	struct semaphore slots;

	struct workqueue_struct *wq;
	struct ism_work_item work[ISM_WORKS];
	struct hrtimer backstop;
	struct task_struct *poller;

	phys_addr_t window_phys;
	u64 window_len;
	void *window;
};

/* dibs_dmb, as the Rust half fills it. */
struct ism_dmb {
	u64 token;
	void *cpu_addr;
	u64 dma_addr;
	u32 len;
	u32 index;
};

/* ---- Rust, called from C ---- */
int ism_rust_validate(struct ism *ism);
int ism_rust_probe(struct ism *ism, void **rust);
int ism_rust_start(void *rust);
void ism_rust_leave(void *rust, bool pipes);
void ism_rust_quiesce(void *rust);
void ism_rust_drop(void *rust);
void ism_rust_used(void *rust, unsigned int queue);
void ism_rust_work(void *rust, unsigned int work);
void ism_rust_backstop(void *rust);
void ism_rust_poll(void *rust);
u64 ism_rust_counter(void *rust, unsigned int counter);

u16 ism_rust_fabric_id(void *rust);
int ism_rust_query(void *rust, const u8 *gid, u32 vlan_valid, u32 vlan_id);
int ism_rust_register(void *rust, const u8 *rgid, u32 len, u32 vlan_valid, u32 vlan_id,
		      u8 client, struct ism_dmb *dmb);
int ism_rust_unregister(void *rust, u64 token, u32 index);
int ism_rust_move(void *rust, u64 token, bool signal, u32 offset, const void *data, u32 len);
int ism_rust_vlan(void *rust, u64 vlan_id, bool add);
int ism_rust_signal_event(void *rust, const u8 *gid, u32 code, u64 info);
int ism_rust_attach(void *rust, u64 token, struct ism_dmb *dmb);
int ism_rust_detach(void *rust, u64 token);

/* ---- C, called from Rust ---- */
void ism_log(struct ism *ism, int level, const char *text, unsigned int len);
unsigned int ism_poll_max_us(void);

unsigned long ism_spin_lock(struct ism *ism, unsigned int spin);
void ism_spin_unlock(struct ism *ism, unsigned int spin, unsigned long flags);
void ism_admin_lock(struct ism *ism);
void ism_admin_unlock(struct ism *ism);

void ism_answer_prepare(struct ism *ism, unsigned int slot);
void ism_answer_complete(struct ism *ism, unsigned int slot);
long ism_answer_wait(struct ism *ism, unsigned int slot, unsigned int timeout_ms);
int ism_slot_get(struct ism *ism, unsigned int timeout_ms);
bool ism_slot_try_get(struct ism *ism);
void ism_slot_put(struct ism *ism);

void *ism_alloc(size_t len);
void ism_free(void *memory);
void *ism_alloc_pages(size_t len);
void ism_free_pages(void *memory);
u64 ism_ram_addr(const void *memory);

void ism_config_read(struct ism *ism, void *to, unsigned int len);
bool ism_has_feature(struct ism *ism, unsigned int bit);
void ism_drop_feature(struct ism *ism, unsigned int bit);
int ism_queues_find(struct ism *ism);
void ism_queues_del(struct ism *ism);
void ism_device_reset(struct ism *ism);

unsigned int ism_queue_size(struct ism *ism, unsigned int queue);
bool ism_queue_broken(struct ism *ism, unsigned int queue);
int ism_queue_add(struct ism *ism, unsigned int queue, void *head, unsigned int head_len,
		  void *body, unsigned int body_len, void *reply, unsigned int reply_len,
		  unsigned long cookie);
unsigned long ism_queue_used(struct ism *ism, unsigned int queue, unsigned int *len);
bool ism_queue_kick_prepare(struct ism *ism, unsigned int queue);
void ism_queue_notify(struct ism *ism, unsigned int queue);
void ism_queue_callbacks_off(struct ism *ism, unsigned int queue);
bool ism_queue_callbacks_on(struct ism *ism, unsigned int queue);

bool ism_window_find(struct ism *ism, u64 *len);
void *ism_window_map(struct ism *ism);
void ism_window_unmap(struct ism *ism);
bool ism_pages_possible(void);
void *ism_extent_map(struct ism *ism, u64 offset, u64 len, void **va);
void ism_extent_unmap(void *extent);
bool ism_pages_held(const void *memory, size_t len);

void ism_work_queue(struct ism *ism, unsigned int work, unsigned int delay_ms);
void ism_backstop_start(struct ism *ism, u64 ns);
int ism_poller_start(struct ism *ism);
void ism_poller_wake(struct ism *ism);
bool ism_poller_should_stop(void);
void ism_poller_sleep_prepare(void);
void ism_poller_sleep_cancel(void);
void ism_poller_sleep(void);
void ism_preempt_disable(void);
void ism_preempt_enable(void);
bool ism_cpu_wanted(void);
void ism_cpu_yield(void);
void ism_cpu_relax(void);
u64 ism_now_ns(void);
void ism_bh_disable(void);
void ism_bh_enable(void);
void ism_sleep_ms(unsigned int ms);
void ism_wait_for_readers(void);

int ism_dibs_add(struct ism *ism, const u8 *gid);
void ism_dibs_del(struct ism *ism);
void ism_dibs_put(struct ism *ism);
void ism_dibs_set_client(struct ism *ism, u32 index, u8 client);
void ism_dibs_signal(struct ism *ism, u32 base, u64 mask);
void ism_dibs_event(struct ism *ism, u32 type, u32 subtype, const u8 *gid, u64 token, u64 data);

extern const struct dibs_dev_ops ism_dibs_ops;
extern const struct dibs_dev_ops ism_dibs_ops_nocopy;
extern bool ism_nocopy;
extern const struct attribute_group *ism_counter_groups[];

#endif
