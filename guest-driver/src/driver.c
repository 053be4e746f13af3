// SPDX-License-Identifier: GPL-2.0
/*
 * virtio_ism: the tables by which the kernel finds and calls the driver.
 *
 * Nothing is decided here: each entry translates the kernel's types into those of the Rust half
 * (shim.h) and back. A device's life: probe() -> ism_rust_probe() -> DRIVER_OK ->
 * ism_rust_start(); remove() -> out of dibs -> ism_rust_quiesce() -> reset -> ism_rust_drop().
 */

#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "shim.h"

/* Not in every kernel's virtio_ids.h. */
#ifndef VIRTIO_ID_ISM
#define VIRTIO_ID_ISM		44
#endif
/* QEMU 11.1 aborts on 44; told apart by the magic in the configuration space. */
#define VIRTIO_ID_ISM_FALLBACK	38

/* As in spec/abi. */
#define ISM_F_WINDOW		0
#define ISM_F_MOVE		1

/* Longer than a round trip of two guests that sleep (160 us under TCG), else the first reply always
 * comes too late and a ping-pong never wakes up.
 */
static unsigned int poll_max_us = 400;
module_param(poll_max_us, uint, 0644);
MODULE_PARM_DESC(poll_max_us,
		 "Longest time in microseconds to look for signals before sleeping; 0: never look, sleep at once (default 400)");

bool ism_nocopy;
module_param_named(nocopy, ism_nocopy, bool, 0444);
MODULE_PARM_DESC(nocopy,
		 "Let SMC write into peers' buffers in place; only with peers you trust, see README (default 0)");

unsigned int ism_poll_max_us(void)
{
	return min(READ_ONCE(poll_max_us), 10000U);
}

/* ---- virtio ---- */

static int ism_validate(struct virtio_device *vdev)
{
	/* The rest of the structure belongs to a probed device. */
	struct ism *ism;
	int rc;

	/* net/smc takes to_pci_dev() of a dibs device's parent, for any user who asks (smc_ism.c). */
	if (!dev_is_pci(vdev->dev.parent)) {
		dev_err(&vdev->dev, "not a PCI device, which net/smc needs\n");
		return -ENODEV;
	}
	ism = kzalloc(sizeof(*ism), GFP_KERNEL);
	if (!ism)
		return -ENOMEM;
	ism->vdev = vdev;
	rc = ism_rust_validate(ism);
	kfree(ism);
	return rc;
}

static void ism_work_fn(struct work_struct *work)
{
	struct ism_work_item *item = container_of(to_delayed_work(work),
						  struct ism_work_item, work);

	ism_rust_work(item->ism->rust, item - item->ism->work);
}

static enum hrtimer_restart ism_backstop_fn(struct hrtimer *timer)
{
	struct ism *ism = container_of(timer, struct ism, backstop);

	/* Starts the timer itself if it must, under the lock of those who start it elsewhere. */
	ism_rust_backstop(ism->rust);
	return HRTIMER_NORESTART;
}

static struct ism *ism_create(struct virtio_device *vdev)
{
	struct ism *ism = kzalloc(sizeof(*ism), GFP_KERNEL);
	int i;

	if (!ism)
		return NULL;
	ism->wq = alloc_workqueue("virtio_ism", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!ism->wq) {
		kfree(ism);
		return NULL;
	}
	ism->vdev = vdev;
	/* One line each: every spin_lock_init() makes a lock class of its own for lockdep. */
	spin_lock_init(&ism->spin[ISM_SPIN_CONTROL]);
	spin_lock_init(&ism->spin[ISM_SPIN_EVENTS]);
	spin_lock_init(&ism->spin[ISM_SPIN_LOCAL]);
	spin_lock_init(&ism->spin[ISM_SPIN_GRANTS]);
	spin_lock_init(&ism->spin[ISM_SPIN_SIGNALS]);
	spin_lock_init(&ism->spin[ISM_SPIN_MOVES]);
	spin_lock_init(&ism->spin[ISM_SPIN_PEERS]);
	spin_lock_init(&ism->spin[ISM_SPIN_VLANS]);
	spin_lock_init(&ism->spin[ISM_SPIN_POLL]);
	mutex_init(&ism->admin);
	mutex_init(&ism->dibs_mutex);
	sema_init(&ism->slots, ISM_SLOTS);
	for (i = 0; i < ISM_SLOTS; i++)
		init_completion(&ism->answered[i]);
	for (i = 0; i < ISM_WORKS; i++) {
		ism->work[i].ism = ism;
		INIT_DELAYED_WORK(&ism->work[i].work, ism_work_fn);
	}
	hrtimer_setup(&ism->backstop, ism_backstop_fn, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	return ism;
}

/* Ends everything that may run on its own account; the device is reset, or was never ready. */
static void ism_stop(struct ism *ism)
{
	int i;

	if (ism->poller)
		kthread_stop(ism->poller);
	hrtimer_cancel(&ism->backstop);
	for (i = 0; i < ISM_WORKS; i++)
		disable_delayed_work_sync(&ism->work[i].work);
}

static void ism_destroy(struct ism *ism)
{
	if (ism->rust)
		ism_rust_drop(ism->rust);
	ism_window_unmap(ism);
	ism_dibs_put(ism);
	destroy_workqueue(ism->wq);
	kfree(ism);
}

static int ism_probe(struct virtio_device *vdev)
{
	struct ism *ism = ism_create(vdev);
	int rc;

	if (!ism)
		return -ENOMEM;
	rc = ism_rust_probe(ism, &ism->rust);
	if (rc)
		goto err_destroy;
	vdev->priv = ism;
	virtio_device_ready(vdev);
	rc = ism_rust_start(ism->rust);
	if (rc)
		goto err_stop;
	return 0;

err_stop:
	ism_rust_quiesce(ism->rust);
	ism_device_reset(ism);
	ism_stop(ism);
err_destroy:
	ism_queues_del(ism);
	vdev->priv = NULL;
	ism_destroy(ism);
	return rc;
}

static void ism_remove(struct virtio_device *vdev)
{
	struct ism *ism = vdev->priv;

	/* May be under way already, because the device was found dead: then wait for it. */
	disable_delayed_work_sync(&ism->work[ISM_WORK_BURY].work);
	ism_dibs_del(ism);
	ism_rust_leave(ism->rust, true);
	ism_rust_quiesce(ism->rust);
	ism_device_reset(ism);
	ism_stop(ism);
	ism_queues_del(ism);
	vdev->priv = NULL;
	ism_destroy(ism);
}

/*
 * The window disappears with the reset, and what is read there afterwards is nobody's data: SMC
 * must not be shown it.
 */
static void ism_shutdown(struct virtio_device *vdev)
{
	struct ism *ism = vdev->priv;

	if (ism) {
		ism_rust_leave(ism->rust, false);
		ism_rust_quiesce(ism->rust);
	}
	virtio_device_shutdown(vdev);
}

#ifdef CONFIG_PM_SLEEP
/* Peers cannot be asked to keep a sleeping member's memory. */
static int ism_freeze(struct virtio_device *vdev)
{
	return -EOPNOTSUPP;
}
#endif

static const struct virtio_device_id ism_ids[] = {
	{ VIRTIO_ID_ISM, VIRTIO_DEV_ANY_ID },
	{ VIRTIO_ID_ISM_FALLBACK, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, ism_ids);

static const unsigned int ism_features[] = { ISM_F_WINDOW, ISM_F_MOVE };

static struct virtio_driver ism_driver = {
	.driver.name = KBUILD_MODNAME,
	.driver.dev_groups = ism_counter_groups,
	.id_table = ism_ids,
	.feature_table = ism_features,
	.feature_table_size = ARRAY_SIZE(ism_features),
	.validate = ism_validate,
	.probe = ism_probe,
	.remove = ism_remove,
	.shutdown = ism_shutdown,
#ifdef CONFIG_PM_SLEEP
	.freeze = ism_freeze,
#endif
};
module_virtio_driver(ism_driver);

MODULE_DESCRIPTION("virtio-ism: shared memory between virtual machines for dibs and SMC-D");
MODULE_AUTHOR("The vhost-user-ism authors");
MODULE_LICENSE("GPL");

/* ---- dibs ---- */

static void *ism_rust_of(struct dibs_dev *dibs)
{
	return ((struct ism *)dibs->drv_priv)->rust;
}

static u16 ism_op_fabric_id(struct dibs_dev *dibs)
{
	return ism_rust_fabric_id(ism_rust_of(dibs));
}

static int ism_op_query(struct dibs_dev *dibs, const uuid_t *rgid, u32 vid_valid, u32 vid)
{
	return ism_rust_query(ism_rust_of(dibs), rgid->b, vid_valid, vid);
}

static int ism_op_max_dmbs(void)
{
	return ISM_MAX_DMBS;
}

static void ism_dmb_fill(struct dibs_dmb *dmb, const struct ism_dmb *from)
{
	dmb->dmb_tok = from->token;
	dmb->cpu_addr = from->cpu_addr;
	dmb->dma_addr = from->dma_addr;
	dmb->dmb_len = from->len;
	dmb->idx = from->index;
}

static int ism_op_register(struct dibs_dev *dibs, struct dibs_dmb *dmb,
			   struct dibs_client *client)
{
	struct ism_dmb out = {};
	int rc;

	rc = ism_rust_register(ism_rust_of(dibs), dmb->rgid.b, dmb->dmb_len, dmb->vlan_valid,
			       dmb->vlan_id, client->id, &out);
	if (!rc)
		ism_dmb_fill(dmb, &out);
	return rc;
}

static int ism_op_unregister(struct dibs_dev *dibs, struct dibs_dmb *dmb)
{
	return ism_rust_unregister(ism_rust_of(dibs), dmb->dmb_tok, dmb->idx);
}

/* idx selects a bit of a mask that no client looks at. */
static int ism_op_move(struct dibs_dev *dibs, u64 dmb_tok, unsigned int idx, bool sf,
		       unsigned int offset, void *data, unsigned int size)
{
	int rc;

	/* Pairs with ism_wait_for_readers(): peers' memory stays mapped while it is written. */
	rcu_read_lock();
	rc = ism_rust_move(ism_rust_of(dibs), dmb_tok, sf, offset, data, size);
	rcu_read_unlock();
	return rc;
}

static int ism_op_add_vlan(struct dibs_dev *dibs, u64 vlan_id)
{
	return ism_rust_vlan(ism_rust_of(dibs), vlan_id, true);
}

static int ism_op_del_vlan(struct dibs_dev *dibs, u64 vlan_id)
{
	return ism_rust_vlan(ism_rust_of(dibs), vlan_id, false);
}

/* Events are never coalesced, so trigger_irq makes no difference. */
static int ism_op_signal_event(struct dibs_dev *dibs, const uuid_t *rgid, u32 trigger_irq,
			       u32 event_code, u64 info)
{
	return ism_rust_signal_event(ism_rust_of(dibs), rgid->b, event_code, info);
}

static int ism_op_support_mmapped_rdmb(struct dibs_dev *dibs)
{
	return 1;
}

static int ism_op_attach(struct dibs_dev *dibs, struct dibs_dmb *dmb)
{
	struct ism_dmb out = {};
	int rc;

	rc = ism_rust_attach(ism_rust_of(dibs), dmb->dmb_tok, &out);
	if (!rc)
		ism_dmb_fill(dmb, &out);
	return rc;
}

static int ism_op_detach(struct dibs_dev *dibs, u64 token)
{
	return ism_rust_detach(ism_rust_of(dibs), token);
}

#define ISM_COMMON_OPS				\
	.get_fabric_id = ism_op_fabric_id,	\
	.query_remote_gid = ism_op_query,	\
	.max_dmbs = ism_op_max_dmbs,		\
	.register_dmb = ism_op_register,	\
	.unregister_dmb = ism_op_unregister,	\
	.move_data = ism_op_move,		\
	.add_vlan_id = ism_op_add_vlan,		\
	.del_vlan_id = ism_op_del_vlan,		\
	.signal_event = ism_op_signal_event

const struct dibs_dev_ops ism_dibs_ops = { ISM_COMMON_OPS };

/* All three or none (include/linux/dibs.h). */
const struct dibs_dev_ops ism_dibs_ops_nocopy = {
	ISM_COMMON_OPS,
	.support_mmapped_rdmb = ism_op_support_mmapped_rdmb,
	.attach_dmb = ism_op_attach,
	.detach_dmb = ism_op_detach,
};

/* ---- Counters: /sys/bus/virtio/devices/virtioN/ism/ ---- */

struct ism_counter_attr {
	struct device_attribute attr;
	unsigned int counter;
};

static ssize_t ism_counter_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct ism *ism = dev_to_virtio(dev)->priv;
	unsigned int counter = container_of(attr, struct ism_counter_attr, attr)->counter;

	return sysfs_emit(buf, "%llu\n", ism_rust_counter(ism->rust, counter));
}

/* The order is that of the Rust half's counters (src/counters.rs). */
#define ISM_COUNTER(number, label)						\
	static struct ism_counter_attr ism_counter_##label = {			\
		.attr = { .attr = { .name = #label, .mode = 0444 },		\
			  .show = ism_counter_show },				\
		.counter = (number),						\
	}

ISM_COUNTER(0, moves);
ISM_COUNTER(1, move_bytes);
ISM_COUNTER(2, move_errors);
ISM_COUNTER(3, signals_rung);
ISM_COUNTER(4, signals_suppressed);
ISM_COUNTER(5, signals_delivered);
ISM_COUNTER(6, interrupts);
ISM_COUNTER(7, polls_hit);
ISM_COUNTER(8, polls_missed);
ISM_COUNTER(9, signals_lost);
ISM_COUNTER(10, registers);
ISM_COUNTER(11, dmbs);
ISM_COUNTER(12, grants);
ISM_COUNTER(13, poll_budget_us);
ISM_COUNTER(14, device_dead);

static struct attribute *ism_counter_attrs[] = {
	&ism_counter_moves.attr.attr,
	&ism_counter_move_bytes.attr.attr,
	&ism_counter_move_errors.attr.attr,
	&ism_counter_signals_rung.attr.attr,
	&ism_counter_signals_suppressed.attr.attr,
	&ism_counter_signals_delivered.attr.attr,
	&ism_counter_interrupts.attr.attr,
	&ism_counter_polls_hit.attr.attr,
	&ism_counter_polls_missed.attr.attr,
	&ism_counter_signals_lost.attr.attr,
	&ism_counter_registers.attr.attr,
	&ism_counter_dmbs.attr.attr,
	&ism_counter_grants.attr.attr,
	&ism_counter_poll_budget_us.attr.attr,
	&ism_counter_device_dead.attr.attr,
	NULL,
};

static const struct attribute_group ism_counter_group = {
	.name = "ism",
	.attrs = ism_counter_attrs,
};

const struct attribute_group *ism_counter_groups[] = { &ism_counter_group, NULL };
