// SPDX-License-Identifier: GPL-2.0
/*
 * virtio_ism: kernel services as plain functions for the Rust half.
 *
 * Most are here because the kernel has them as inline functions or macros. None of them keeps
 * state of its own or decides anything; what is called with a spinlock held never sleeps.
 */

#include <linux/delay.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/kthread.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/sched/stat.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <uapi/linux/sched/types.h>

#include "shim.h"

#ifdef CONFIG_PREEMPT_RT
#error "spinlocks are taken by the polling thread with preemption off"
#endif

/* The window's extents are made of compound pages of this size, see ism_extent_map(). */
#define ISM_COMPOUND	SZ_2M
#define ISM_SHM_WINDOW	1

void ism_log(struct ism *ism, int level, const char *text, unsigned int len)
{
	struct device *dev = &ism->vdev->dev;

	switch (level) {
	case 3:
		dev_err(dev, "%.*s\n", len, text);
		break;
	case 4:
		dev_warn_ratelimited(dev, "%.*s\n", len, text);
		break;
	default:
		dev_info(dev, "%.*s\n", len, text);
	}
}

/* ---- Locks and waiting ---- */

unsigned long ism_spin_lock(struct ism *ism, unsigned int spin)
{
	unsigned long flags;

	spin_lock_irqsave(&ism->spin[spin], flags);
	return flags;
}

void ism_spin_unlock(struct ism *ism, unsigned int spin, unsigned long flags)
{
	spin_unlock_irqrestore(&ism->spin[spin], flags);
}

void ism_admin_lock(struct ism *ism)
{
	mutex_lock(&ism->admin);
}

void ism_admin_unlock(struct ism *ism)
{
	mutex_unlock(&ism->admin);
}

int ism_slot_get(struct ism *ism, unsigned int timeout_ms)
{
	return down_timeout(&ism->slots, msecs_to_jiffies(timeout_ms));
}

bool ism_slot_try_get(struct ism *ism)
{
	return !down_trylock(&ism->slots);
}

void ism_slot_put(struct ism *ism)
{
	up(&ism->slots);
}

void ism_answer_prepare(struct ism *ism, unsigned int slot)
{
	reinit_completion(&ism->answered[slot]);
}

void ism_answer_complete(struct ism *ism, unsigned int slot)
{
	complete(&ism->answered[slot]);
}

/* Positive: answered; 0: timed out; negative: the caller is being killed. */
long ism_answer_wait(struct ism *ism, unsigned int slot, unsigned int timeout_ms)
{
	return wait_for_completion_killable_timeout(&ism->answered[slot],
						    msecs_to_jiffies(timeout_ms));
}

void ism_wait_for_readers(void)
{
	synchronize_rcu();
}

void ism_sleep_ms(unsigned int ms)
{
	msleep(ms);
}

/* ---- Memory ---- */

void *ism_alloc(size_t len)
{
	return kzalloc(len, GFP_KERNEL);
}

void ism_free(void *memory)
{
	kfree(memory);
}

/* As dibs_loopback does: a failure only means that the connection uses TCP. */
void *ism_alloc_pages(size_t len)
{
	struct folio *folio = folio_alloc(GFP_KERNEL | __GFP_NOWARN | __GFP_NOMEMALLOC |
					  __GFP_NORETRY | __GFP_ZERO, get_order(len));

	return folio ? folio_address(folio) : NULL;
}

void ism_free_pages(void *memory)
{
	folio_put(virt_to_folio(memory));
}

u64 ism_ram_addr(const void *memory)
{
	return virt_to_phys((void *)memory);
}

/* ---- The virtio device ---- */

void ism_config_read(struct ism *ism, void *to, unsigned int len)
{
	unsigned int at;

	/* One access of at most 8 bytes each: the core calls BUG() for others. */
	for (at = 0; at + 8 <= len; at += 8)
		ism->vdev->config->get(ism->vdev, at, to + at, 8);
}

bool ism_has_feature(struct ism *ism, unsigned int bit)
{
	return virtio_has_feature(ism->vdev, bit);
}

void ism_drop_feature(struct ism *ism, unsigned int bit)
{
	__virtio_clear_bit(ism->vdev, bit);
}

static void ism_queue_callback(struct virtqueue *vq)
{
	struct ism *ism = vq->vdev->priv;

	if (ism)
		ism_rust_used(ism->rust, vq->index);
}

int ism_queues_find(struct ism *ism)
{
	struct virtqueue_info info[ISM_QUEUES] = {
		{ "control", ism_queue_callback },
		{ "event", ism_queue_callback },
		{ "signal", ism_queue_callback },
		{ "move", ism_queue_callback },
	};

	int rc = virtio_find_vqs(ism->vdev, ISM_QUEUES, ism->vq, info, NULL);

	ism->has_queues = !rc;
	return rc;
}

/* The device is reset, or was never ready. */
void ism_queues_del(struct ism *ism)
{
	int i;

	if (!ism->has_queues)
		return;
	/* Also ends the buffers' DMA mappings. */
	for (i = 0; i < ISM_QUEUES; i++) {
		while (virtqueue_detach_unused_buf(ism->vq[i]))
			;
	}
	ism->vdev->config->del_vqs(ism->vdev);
	ism->has_queues = false;
}

void ism_device_reset(struct ism *ism)
{
	virtio_reset_device(ism->vdev);
}

unsigned int ism_queue_size(struct ism *ism, unsigned int queue)
{
	return virtqueue_get_vring_size(ism->vq[queue]);
}

bool ism_queue_broken(struct ism *ism, unsigned int queue)
{
	return virtqueue_is_broken(ism->vq[queue]);
}

/* head and body are read by the device, reply is written; each may be absent (NULL). */
int ism_queue_add(struct ism *ism, unsigned int queue, void *head, unsigned int head_len,
		  void *body, unsigned int body_len, void *reply, unsigned int reply_len,
		  unsigned long cookie)
{
	struct scatterlist sg[3], *sgs[3];
	unsigned int out = 0, in = 0;

	if (head) {
		sg_init_one(&sg[out], head, head_len);
		sgs[out] = &sg[out];
		out++;
	}
	if (body) {
		sg_init_one(&sg[out], body, body_len);
		sgs[out] = &sg[out];
		out++;
	}
	if (reply) {
		sg_init_one(&sg[out], reply, reply_len);
		sgs[out] = &sg[out];
		in++;
	}
	return virtqueue_add_sgs(ism->vq[queue], sgs, out, in, (void *)cookie, GFP_ATOMIC);
}

/* The cookie of a used buffer, or 0. */
unsigned long ism_queue_used(struct ism *ism, unsigned int queue, unsigned int *len)
{
	return (unsigned long)virtqueue_get_buf(ism->vq[queue], len);
}

bool ism_queue_kick_prepare(struct ism *ism, unsigned int queue)
{
	return virtqueue_kick_prepare(ism->vq[queue]);
}

void ism_queue_notify(struct ism *ism, unsigned int queue)
{
	virtqueue_notify(ism->vq[queue]);
}

void ism_queue_callbacks_off(struct ism *ism, unsigned int queue)
{
	virtqueue_disable_cb(ism->vq[queue]);
}

/* False if there are used buffers already. */
bool ism_queue_callbacks_on(struct ism *ism, unsigned int queue)
{
	return virtqueue_enable_cb(ism->vq[queue]);
}

/* ---- The window ---- */

bool ism_window_find(struct ism *ism, u64 *len)
{
	struct virtio_shm_region region;

	if (!virtio_get_shm_region(ism->vdev, &region, ISM_SHM_WINDOW))
		return false;
	ism->window_phys = region.addr;
	ism->window_len = region.len;
	*len = region.len;
	return true;
}

/* Page tables only: enough to write into peers' DMBs, whatever the window's size. */
void *ism_window_map(struct ism *ism)
{
	ism->window = memremap(ism->window_phys, ism->window_len, MEMREMAP_WB);
	return ism->window;
}

void ism_window_unmap(struct ism *ism)
{
	if (ism->window)
		memunmap(ism->window);
	ism->window = NULL;
}

bool ism_pages_possible(void)
{
	return IS_ENABLED(CONFIG_ZONE_DEVICE);
}

#ifdef CONFIG_ZONE_DEVICE
/*
 * Own DMBs need struct pages: SMC takes virt_to_page(cpu_addr) and splices them into pipes as one
 * page with an offset, which page_copy_sane() (lib/iov_iter.c) allows in compound pages only.
 * A DMB never crosses a block of WINDOW_ALIGN, so one compound page of that size holds it.
 */
void *ism_extent_map(struct ism *ism, u64 offset, u64 len, void **va)
{
	phys_addr_t start = ism->window_phys + offset;
	struct dev_pagemap *pgmap, *other;
	void *mapped;

	/* Left behind by an earlier load, because pages were still in use (ism_extent_unmap). */
	other = get_dev_pagemap(PHYS_PFN(start));
	if (other) {
		put_dev_pagemap(other);
		return ERR_PTR(-EBUSY);
	}
	pgmap = kzalloc(sizeof(*pgmap), GFP_KERNEL);
	if (!pgmap)
		return ERR_PTR(-ENOMEM);
	pgmap->type = MEMORY_DEVICE_GENERIC;
	pgmap->range.start = start;
	pgmap->range.end = start + len - 1;
	pgmap->nr_range = 1;
	pgmap->vmemmap_shift = ilog2(ISM_COMPOUND >> PAGE_SHIFT);
	mapped = memremap_pages(pgmap, NUMA_NO_NODE);
	if (IS_ERR(mapped)) {
		kfree(pgmap);
		return mapped;
	}
	*va = mapped;
	return pgmap;
}

/* No page of it may be in use: a generic pagemap does not wait for them. */
void ism_extent_unmap(void *extent)
{
	memunmap_pages(extent);
	kfree(extent);
}
#else
void *ism_extent_map(struct ism *ism, u64 offset, u64 len, void **va)
{
	return ERR_PTR(-EOPNOTSUPP);
}

void ism_extent_unmap(void *extent)
{
}
#endif

/*
 * Whether somebody else (a pipe) refers to the compound pages under @memory. Free pages of a
 * generic pagemap have a count of 1, as have those of ism_alloc_pages().
 */
bool ism_pages_held(const void *memory, size_t len)
{
	const void *at = memory;

	while (at < memory + len) {
		struct folio *folio = virt_to_folio(at);

		if (folio_ref_count(folio) > 1)
			return true;
		at = folio_address(folio) + folio_size(folio);
	}
	return false;
}

/* ---- Time, works, the poller ---- */

u64 ism_now_ns(void)
{
	return ktime_get_mono_fast_ns();
}

/* Never puts a run off. Without a delay it brings one forward. */
void ism_work_queue(struct ism *ism, unsigned int work, unsigned int delay_ms)
{
	struct delayed_work *dwork = &ism->work[work].work;

	if (delay_ms)
		queue_delayed_work(ism->wq, dwork, msecs_to_jiffies(delay_ms));
	else
		mod_delayed_work(ism->wq, dwork, 0);
}

/* Not hrtimer_active(): a callback that is about to return does not count. */
void ism_backstop_start(struct ism *ism, u64 ns)
{
	if (!hrtimer_is_queued(&ism->backstop))
		hrtimer_start(&ism->backstop, ns_to_ktime(ns), HRTIMER_MODE_REL);
}

static int ism_poller_fn(void *data)
{
	struct ism *ism = data;
	/* Runs when nothing else wants the CPU. */
	const struct sched_attr idle = { .sched_policy = SCHED_IDLE };

	sched_setattr_nocheck(current, &idle);
	ism_rust_poll(ism->rust);
	return 0;
}

int ism_poller_start(struct ism *ism)
{
	struct task_struct *task = kthread_run(ism_poller_fn, ism, "%s-poll",
					       dev_name(&ism->vdev->dev));

	if (IS_ERR(task))
		return PTR_ERR(task);
	ism->poller = task;
	return 0;
}

void ism_poller_wake(struct ism *ism)
{
	struct task_struct *task = READ_ONCE(ism->poller);

	if (task)
		wake_up_process(task);
}

bool ism_poller_should_stop(void)
{
	return kthread_should_stop();
}

void ism_poller_sleep_prepare(void)
{
	set_current_state(TASK_INTERRUPTIBLE);
}

void ism_poller_sleep_cancel(void)
{
	__set_current_state(TASK_RUNNING);
}

void ism_poller_sleep(void)
{
	schedule();
}

/* Not on PREEMPT_RT, where what runs in between takes locks that sleep. */
void ism_preempt_disable(void)
{
	if (!IS_ENABLED(CONFIG_PREEMPT_RT))
		preempt_disable();
}

void ism_preempt_enable(void)
{
	if (!IS_ENABLED(CONFIG_PREEMPT_RT))
		preempt_enable();
}

/* Not only need_resched(): a lazily preempting kernel does not set it for a woken task. */
bool ism_cpu_wanted(void)
{
	return need_resched() || !single_task_running();
}

/* For whoever else is runnable, of whom there is somebody (ism_cpu_wanted): not a busy wait. */
void ism_cpu_yield(void)
{
	yield();
}

void ism_cpu_relax(void)
{
	cpu_relax();
}

void ism_bh_disable(void)
{
	local_bh_disable();
}

void ism_bh_enable(void)
{
	local_bh_enable();
}

/* ---- dibs ---- */

/* Gives up the last dibs device, which is out of dibs. */
void ism_dibs_put(struct ism *ism)
{
	struct dibs_dev *dibs = rcu_dereference_protected(ism->dibs, true);

	if (!dibs)
		return;
	rcu_assign_pointer(ism->dibs, NULL);
	/* Interrupts may look at it still. */
	synchronize_rcu();
	put_device(&dibs->dev);
}

int ism_dibs_add(struct ism *ism, const u8 *gid)
{
	struct dibs_dev *dibs = dibs_dev_alloc();
	int rc;

	if (!dibs)
		return -ENOMEM;
	/* A PCI function: net/smc takes to_pci_dev() of it (smc_ism.c). */
	dibs->dev.parent = ism->vdev->dev.parent;
	dibs->ops = ism_nocopy ? &ism_dibs_ops_nocopy : &ism_dibs_ops;
	dibs->drv_priv = ism;
	import_uuid(&dibs->gid, gid);
	rc = dev_set_name(&dibs->dev, "ism-%s", dev_name(&ism->vdev->dev));
	if (rc) {
		put_device(&dibs->dev);
		return rc;
	}
	mutex_lock(&ism->dibs_mutex);
	ism_dibs_put(ism);
	/* First, because clients register DMBs while they are told of the device. */
	rcu_assign_pointer(ism->dibs, dibs);
	rc = dibs_dev_add(dibs);
	ism->dibs_added = !rc;
	mutex_unlock(&ism->dibs_mutex);
	return rc;
}

/* Returns when the device is out of dibs, whoever takes it out. */
void ism_dibs_del(struct ism *ism)
{
	mutex_lock(&ism->dibs_mutex);
	if (ism->dibs_added)
		dibs_dev_del(rcu_dereference_protected(ism->dibs, true));
	ism->dibs_added = false;
	mutex_unlock(&ism->dibs_mutex);
}

void ism_dibs_set_client(struct ism *ism, u32 index, u8 client)
{
	struct dibs_dev *dibs;
	unsigned long flags;

	rcu_read_lock();
	dibs = rcu_dereference(ism->dibs);
	if (dibs && index < ISM_MAX_DMBS) {
		spin_lock_irqsave(&dibs->lock, flags);
		if (dibs->dmb_clientid_arr)
			dibs->dmb_clientid_arr[index] = client;
		spin_unlock_irqrestore(&dibs->lock, flags);
	}
	rcu_read_unlock();
}

static void ism_dibs_signal_one(struct dibs_dev *dibs, u32 index)
{
	u8 id = dibs->dmb_clientid_arr[index];
	struct dibs_client *client = id < MAX_DIBS_CLIENTS ? dibs->subs[id] : NULL;

	/* The mask that says "bit 0 of the sender"; no client looks at it. */
	if (client)
		client->ops->handle_irq(dibs, index, 0x1000);
}

/* The DMBs base + n, for each bit n of mask, were written. */
void ism_dibs_signal(struct ism *ism, u32 base, u64 mask)
{
	struct dibs_dev *dibs;
	unsigned long flags;

	rcu_read_lock();
	dibs = rcu_dereference(ism->dibs);
	if (dibs) {
		spin_lock_irqsave(&dibs->lock, flags);
		for (; mask && dibs->dmb_clientid_arr; mask &= mask - 1) {
			u32 index = base + __ffs64(mask);

			if (index < ISM_MAX_DMBS)
				ism_dibs_signal_one(dibs, index);
		}
		spin_unlock_irqrestore(&dibs->lock, flags);
	}
	rcu_read_unlock();
}

void ism_dibs_event(struct ism *ism, u32 type, u32 subtype, const u8 *gid, u64 token, u64 data)
{
	struct dibs_event event = {
		.type = type,
		.subtype = subtype,
		.buffer_tok = token,
		.time = ktime_get_real_ns(),
		.data = data,
	};
	struct dibs_dev *dibs;
	unsigned long flags;
	int i;

	import_uuid(&event.gid, gid);
	rcu_read_lock();
	dibs = rcu_dereference(ism->dibs);
	if (dibs) {
		spin_lock_irqsave(&dibs->lock, flags);
		for (i = 0; i < MAX_DIBS_CLIENTS; i++) {
			if (dibs->subs[i])
				dibs->subs[i]->ops->handle_event(dibs, &event);
		}
		spin_unlock_irqrestore(&dibs->lock, flags);
	}
	rcu_read_unlock();
}
