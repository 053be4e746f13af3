// SPDX-License-Identifier: GPL-2.0
/*
 * For captures only: makes a guest's kernel SMC take paths that a guest without
 * the hardware does not take. What is sent then is still the kernel's own.
 *
 * roce_v1=ADDRESS  soft-RoCE has RoCE v2 GIDs only, SMC-R version 1 asks for a
 *                  RoCE v1 GID: show it the v2 GID of ADDRESS's subnet instead
 * hurry=1          an unused link group is freed after 3 s instead of 600 or 610
 * answer=FUNCTION:VALUE,...
 *                  these functions return VALUE, whatever they did
 */
#include <linux/inet.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "smc_core.h"

#define MAX_ANSWERS 8

static char *roce_v1;
module_param(roce_v1, charp, 0444);
MODULE_PARM_DESC(roce_v1, "IPv4 address whose RoCE v2 GID SMC-R version 1 gets");

static bool hurry;
module_param(hurry, bool, 0444);
MODULE_PARM_DESC(hurry, "Free unused link groups after 3 seconds");

static char *answer[MAX_ANSWERS];
static int answers;
module_param_array(answer, charp, &answers, 0444);
MODULE_PARM_DESC(answer, "FUNCTION:VALUE that it shall return");

static struct smc_init_info_smcrv2 route;

/* int smc_ib_determine_gid(smcibdev, ibport, vlan_id, gid, sgid_index, smcrv2) */
static int show_v2_gid(struct kprobe *probe, struct pt_regs *regs)
{
	if (!regs->r9)
		regs->r9 = (unsigned long)&route;
	return 0;
}

static struct kprobe determine_gid = {
	.symbol_name = "smc_ib_determine_gid",
	.pre_handler = show_v2_gid,
};

/* SMC_LGR_FREE_DELAY_SERV and _CLNT (net/smc/smc_core.c) */
#define FREE_DELAY_SERV (600 * HZ)
#define FREE_DELAY_CLNT (FREE_DELAY_SERV + 10 * HZ)

/* bool mod_delayed_work_on(cpu, wq, dwork, delay) */
static int shorten(struct kprobe *probe, struct pt_regs *regs)
{
	if (regs->cx == FREE_DELAY_SERV || regs->cx == FREE_DELAY_CLNT)
		regs->cx /= 200;
	return 0;
}

static struct kprobe delayed_work = {
	.symbol_name = "mod_delayed_work_on",
	.pre_handler = shorten,
};

struct forced {
	struct kretprobe probe;
	long value;
	char function[64];
};

static struct forced *forced[MAX_ANSWERS];

static int give_answer(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct kretprobe *probe = get_kretprobe(instance);

	if (probe)
		regs_set_return_value(regs, container_of(probe, struct forced, probe)->value);
	return 0;
}

static int force(int i)
{
	struct forced *f = kzalloc(sizeof(*f), GFP_KERNEL);
	int rc;

	if (!f)
		return -ENOMEM;
	if (sscanf(answer[i], "%63[^:]:%li", f->function, &f->value) != 2) {
		kfree(f);
		return -EINVAL;
	}
	f->probe.kp.symbol_name = f->function;
	f->probe.handler = give_answer;
	rc = register_kretprobe(&f->probe);
	if (rc) {
		kfree(f);
		return rc;
	}
	forced[i] = f;
	return 0;
}

static void undo(void)
{
	int i;

	for (i = 0; i < MAX_ANSWERS; i++) {
		if (!forced[i])
			continue;
		unregister_kretprobe(&forced[i]->probe);
		kfree(forced[i]);
	}
	if (hurry)
		unregister_kprobe(&delayed_work);
	if (roce_v1)
		unregister_kprobe(&determine_gid);
}

static int __init golden_force_init(void)
{
	int i, rc;

	if (roce_v1) {
		if (!in4_pton(roce_v1, -1, (u8 *)&route.saddr, -1, NULL))
			return -EINVAL;
		rc = register_kprobe(&determine_gid);
		if (rc)
			return rc;
	}
	if (hurry) {
		rc = register_kprobe(&delayed_work);
		if (rc) {
			hurry = false;
			undo();
			return rc;
		}
	}
	for (i = 0; i < answers; i++) {
		rc = force(i);
		if (rc) {
			undo();
			return rc;
		}
	}
	return 0;
}

static void __exit golden_force_exit(void)
{
	undo();
}

module_init(golden_force_init);
module_exit(golden_force_exit);
MODULE_DESCRIPTION("Forces kernel SMC into paths that a capture needs");
MODULE_LICENSE("GPL");
