// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Kills what starts in a blocked container and is not of its image, before its first instruction.
 *
 * The guard denies such programs when they are opened; this is for what cannot be denied there: files
 * without a place (memfd, deleted), file systems that were mounted since, and whatever starts while
 * no guard runs. It is pinned, so it outlives the agent.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "events.h"
#include "origin.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define SIGNAL_KILL 9
#define DEPTH_MAX 8

struct blocked {
	/* A bit per origin of what is killed unless it was approved. */
	u64 origins;
	/* How many were. */
	u64 killed;
};

/* By the container's cgroup. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct blocked);
} blocked SEC(".maps");

struct file_key {
	u64 cgroup;
	u64 inode;
	u64 size;
};

/* Files whose content the image holds, though they are not of its layers: src/response/guard. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct file_key);
	__type(value, u8);
} approved SEC(".maps");

/* The blocked container that a cgroup is of, by its id; 0 for none. */
static __always_inline u64 blocked_by(struct cgroup *cgroup)
{
	for (int i = 0; i < DEPTH_MAX; i++) {
		u64 id;

		if (!cgroup)
			return 0;
		id = BPF_CORE_READ(cgroup, kn, id);
		if (bpf_map_lookup_elem(&blocked, &id))
			return id;
		cgroup = BPF_CORE_READ(cgroup, self.parent, cgroup);
	}
	return 0;
}

/* The runtime on its way into the container: it sees the files that its parent outside sees. */
static __always_inline bool is_runtime(struct task_struct *task, u64 id)
{
	struct task_struct *parent = BPF_CORE_READ(task, real_parent, group_leader);

	return BPF_CORE_READ(task, nsproxy, mnt_ns) == BPF_CORE_READ(parent, nsproxy, mnt_ns) &&
	       blocked_by(BPF_CORE_READ(parent, cgroups, dfl_cgrp)) != id;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_blocked_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct file_key key = { .cgroup = blocked_by(BPF_CORE_READ(task, cgroups, dfl_cgrp)) };
	struct blocked *found = bpf_map_lookup_elem(&blocked, &key.cgroup);
	struct inode *inode;

	if (!found)
		return 0;
	inode = BPF_CORE_READ(bprm, file, f_inode);
	if (!(found->origins & (1ULL << origin_of(inode))))
		return 0;
	key.inode = BPF_CORE_READ(inode, i_ino);
	key.size = BPF_CORE_READ(inode, i_size);
	if (bpf_map_lookup_elem(&approved, &key) || is_runtime(task, key.cgroup))
		return 0;
	__sync_fetch_and_add(&found->killed, 1);
	bpf_send_signal(SIGNAL_KILL);
	return 0;
}
