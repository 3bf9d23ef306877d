// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * The kernel side of the agent: what processes of containers do, and nothing of any other process.
 *
 * A process is of a container if its cgroup is in `cgroups`; whoever is not costs one look-up. The
 * runtime's own process works inside the container's cgroup until it starts what it was told to, so
 * a process counts only from its first program on (`members`): its mounts and namespaces before that
 * are the runtime's.
 *
 * What cannot be sent is counted in `drops`, per cgroup and class.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "events.h"
#include "origin.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Set by the agent before loading, in this order. */
struct settings {
	s64 v1_controller;	/* index of the controller whose cgroups count; -1: v2 */
	u64 quiet_ns;		/* a connection is told again after so long */
	u32 hierarchy;		/* the hierarchy's id; 0: v2 */
	u32 events_per_s_max;	/* of a class and a container */
};

const volatile struct settings settings SEC(".rodata.settings") = { .v1_controller = -1 };

#define NANOSECONDS 1000000000ULL
#define TCP_LISTEN 10
#define AF_UNIX 1
#define AT_FDCWD -100
#define AF_INET 2
#define AF_INET6 10
#define CONTAINER_ID 64
#define FNV_START 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

/* A cgroup, and the container's cgroup that it is or lies in. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, u64);
} cgroups SEC(".maps");

/* Processes that run what a container was told to run. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, u32);
	__type(value, u8);
} members SEC(".maps");

/* Hashes of names, and what is watched of each (enum watch). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u8);
} watched SEC(".maps");

struct class_key {
	u64 cgroup;
	u64 class;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct class_key);
	__type(value, u64);
} drops SEC(".maps");

struct budget {
	u64 second;
	u64 used;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct class_key);
	__type(value, struct budget);
} budgets SEC(".maps");

struct flow_key {
	u64 started;
	u32 pid;
	u16 port;
	u8 kind;
	u8 protocol;
	u8 address[16];
};

/* Connections that were told, and when. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct flow_key);
	__type(value, u64);
} flows SEC(".maps");

/* Exec, rare calls, life of cgroups: never shed for the sake of the others. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} high SEC(".maps");

/* Network, files, fork and exit. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} low SEC(".maps");

/* Where a walk up a path is. */
struct walk {
	struct dentry *dentry;
	struct vfsmount *mnt;
	struct mount *mount;
	struct dentry *root;
	struct vfsmount *root_mnt;
	u64 end;
	u64 limit;
	u32 parts;
	u32 below_mount;
	u32 is_whole;
};

/* Exec is told from here, for it does not fit the stack; and paths are written here first. */
struct scratch {
	struct exec_event event;
	struct walk walk;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/*
 * What loops work with lies here and not on the stack: the verifier follows a stack through a loop, and
 * takes what the first round left there for what the last one will.
 */
struct name_buffer {
	char text[TEXT_MAX];
	u64 hash;
	/* Of the part before the last one; 0 where there is none. */
	u64 folder;
	u32 run;
	u32 is_long;
};

/* The second one is for the name of a directory. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, struct name_buffer);
} names SEC(".maps");

/* ---- whose, how many ---- */

static __always_inline void count_drop(u64 cgroup, u64 class)
{
	struct class_key key = { .cgroup = cgroup, .class = class };
	u64 one = 1, *count = bpf_map_lookup_elem(&drops, &key);

	if (!count) {
		if (!bpf_map_update_elem(&drops, &key, &one, BPF_NOEXIST))
			return;
		count = bpf_map_lookup_elem(&drops, &key);
	}
	if (count) {
		__sync_fetch_and_add(count, 1);
		return;
	}
	/* The table is full: nobody's. */
	key.cgroup = 0;
	count = bpf_map_lookup_elem(&drops, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline u64 cgroup_of(struct task_struct *task)
{
	s64 controller = settings.v1_controller;

	if (controller >= 0 && controller < 16) {
		struct css_set *set = BPF_CORE_READ(task, cgroups);
		struct cgroup_subsys_state *state = NULL;
		u64 at = bpf_core_field_offset(struct css_set, subsys) + controller * sizeof(state);

		bpf_probe_read_kernel(&state, sizeof(state), (void *)set + at);
		return BPF_CORE_READ(state, cgroup, kn, id);
	}
	return BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
}

/* The container's cgroup that a task is in, else 0. */
static __always_inline u64 container_of_task(struct task_struct *task)
{
	u64 id = cgroup_of(task);
	u64 *root = bpf_map_lookup_elem(&cgroups, &id);

	return root ? *root : 0;
}

/* The same for the current task, where it runs what the container was told to run. */
static __always_inline u64 container_of_member(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 root = container_of_task(task);
	u32 pid = bpf_get_current_pid_tgid() >> 32;

	if (!root || !bpf_map_lookup_elem(&members, &pid))
		return 0;
	return root;
}

static __always_inline bool is_within_budget(u64 cgroup, u64 class)
{
	struct class_key key = { .cgroup = cgroup, .class = class };
	u64 second = bpf_ktime_get_boot_ns() / NANOSECONDS;
	struct budget *budget = bpf_map_lookup_elem(&budgets, &key);

	if (!budget) {
		struct budget fresh = { .second = second, .used = 1 };

		bpf_map_update_elem(&budgets, &key, &fresh, BPF_ANY);
		return true;
	}
	if (budget->second != second) {
		budget->second = second;
		budget->used = 0;
	}
	if (__sync_fetch_and_add(&budget->used, 1) < settings.events_per_s_max)
		return true;
	count_drop(cgroup, class);
	return false;
}

static __always_inline void describe(struct header *h, u32 kind, u64 cgroup,
				     struct task_struct *task)
{
	h->kind = kind;
	h->pid = BPF_CORE_READ(task, tgid);
	h->at = bpf_ktime_get_boot_ns();
	h->cgroup = cgroup;
	h->started = BPF_CORE_READ(task, group_leader, start_boottime);
}

static __always_inline void add_member(u32 pid, u64 cgroup)
{
	u8 yes = 1;

	if (bpf_map_update_elem(&members, &pid, &yes, BPF_ANY))
		count_drop(cgroup, CLASS_PROCESS);
}

/* ---- files ---- */

/* One step up: writes a name, or goes from a mount's root to where it is mounted. */
static long step_up(u32 index, struct scratch **context)
{
	struct walk *walk = &(*context)->walk;
	struct dentry *dentry = walk->dentry, *parent;
	struct vfsmount *mnt = walk->mnt;
	u64 end = walk->end;
	long length;

	if (dentry == walk->root && mnt == walk->root_mnt) {
		walk->is_whole = true;
		return 1;
	}
	if (dentry == BPF_CORE_READ(mnt, mnt_root)) {
		struct mount *mount = walk->mount, *above = BPF_CORE_READ(mount, mnt_parent);

		if (above == mount) {
			walk->is_whole = true;
			return 1;
		}
		if (walk->below_mount == 255)
			walk->below_mount = walk->parts;
		walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		walk->mount = above;
		walk->mnt = (void *)above + bpf_core_field_offset(struct mount, mnt);
		return 0;
	}
	if (end > walk->limit || end > CWD_END)
		return 1;
	length = bpf_probe_read_kernel_str(&(*context)->event.data[end], NAME_MAX,
					   BPF_CORE_READ(dentry, d_name.name));
	if (length <= 0)
		return 1;
	walk->end = end + length;
	walk->parts++;
	parent = BPF_CORE_READ(dentry, d_parent);
	if (parent == dentry) {
		walk->is_whole = true;	/* memfd: it has a name and no place */
		return 1;
	}
	walk->dentry = parent;
	return 0;
}

/*
 * Writes the names of a path, from the last to the first, up to the process's root. bpf_d_path is
 * not for tracepoints.
 */
static __always_inline void walk_up(struct scratch *scratch, struct path *place, u64 limit)
{
	struct walk *walk = &scratch->walk;

	walk->dentry = place->dentry;
	walk->mnt = place->mnt;
	walk->mount = (void *)place->mnt - bpf_core_field_offset(struct mount, mnt);
	walk->limit = limit;
	walk->parts = 0;
	walk->below_mount = 255;
	walk->is_whole = false;
	bpf_loop(PARTS_MAX, step_up, &scratch, 0);
}

static __always_inline u8 stdio_of(struct task_struct *task, u32 number)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd), *file = NULL;
	struct inode *inode;
	u32 device;

	if (number >= BPF_CORE_READ(table, max_fds))
		return STDIO_OTHER;
	bpf_probe_read_kernel(&file, sizeof(file), files + number);
	if (!file)
		return STDIO_OTHER;
	inode = BPF_CORE_READ(file, f_inode);
	switch (BPF_CORE_READ(inode, i_mode) & 0170000) {
	case 0100000:
		return STDIO_FILE;
	case 0010000:
		return STDIO_PIPE;
	case 0020000:
		device = BPF_CORE_READ(inode, i_rdev) >> 20;
		return device == 4 || device == 5 || (device >= 136 && device <= 143)
			       ? STDIO_TERMINAL
			       : STDIO_OTHER;
	case 0140000: {
		void *whole = (void *)inode - bpf_core_field_offset(struct socket_alloc, vfs_inode);
		struct socket_alloc *socket = whole;

		return BPF_CORE_READ(socket, socket.sk, __sk_common.skc_family) == AF_UNIX
			       ? STDIO_UNIX_SOCKET
			       : STDIO_SOCKET;
	}
	default:
		return STDIO_OTHER;
	}
}

/* ---- processes ---- */

/* A user or group as its user namespace counts; 65534 where that does not know it. */
static __always_inline u32 mapped(struct uid_gid_map *map, u32 id)
{
	u32 count = BPF_CORE_READ(map, nr_extents);

	for (int i = 0; i < 5; i++) {
		struct uid_gid_extent extent = {};

		if (i >= count)
			break;
		bpf_core_read(&extent, sizeof(extent), &map->extent[i]);
		if (id - extent.lower_first < extent.count)
			return extent.first + (id - extent.lower_first);
	}
	return 65534;
}

static __always_inline bool is_first_of_namespace(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	u32 level = BPF_CORE_READ(pid, level);
	int number = 0;
	u64 at = bpf_core_field_offset(struct pid, numbers) +
		 level * bpf_core_type_size(struct upid) + bpf_core_field_offset(struct upid, nr);

	bpf_probe_read_kernel(&number, sizeof(number), (void *)pid + at);
	return level > 0 && number == 1;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	u32 zero = 0;
	u64 end;
	u64 cgroup = container_of_task(task);
	struct exec_event *event;
	struct task_struct *parent;
	struct path place, root, cwd;
	struct inode *inode;
	struct mm_struct *mm;
	const struct cred *cred;
	struct user_namespace *users;
	struct scratch *scratch;
	struct walk *walk;
	const char *named;
	u64 args, length;
	long copied;
	bool is_outside;

	if (!cgroup)
		return 0;
	scratch = bpf_map_lookup_elem(&scratches, &zero);
	if (!scratch)
		return 0;
	event = &scratch->event;
	walk = &scratch->walk;
	parent = BPF_CORE_READ(task, real_parent, group_leader);
	is_outside = container_of_task(parent) != cgroup;
	/* The runtime itself, on its way into the container: it sees the files that its parent sees. */
	if (is_outside && BPF_CORE_READ(task, nsproxy, mnt_ns) == BPF_CORE_READ(parent, nsproxy, mnt_ns))
		return 0;
	/* Flags are gathered in memory that the verifier does not follow: each one known to it would
	 * double what it has to look at. */
	event->flags = is_outside ? EXEC_FROM_OUTSIDE : 0;
	add_member(BPF_CORE_READ(task, tgid), cgroup);
	if (is_first_of_namespace(task))
		event->flags |= EXEC_FIRST;
	if (BPF_CORE_READ(task, signal, tty))
		event->flags |= EXEC_TERMINAL;
	if (BPF_CORE_READ(bprm, filename) != BPF_CORE_READ(bprm, interp))
		event->flags |= EXEC_IS_SCRIPT;

	describe(&event->h, KIND_EXEC, cgroup, task);
	event->parent = BPF_CORE_READ(parent, tgid);
	event->parent_started = BPF_CORE_READ(parent, start_boottime);
	cred = BPF_CORE_READ(task, cred);
	bpf_core_read(&event->capabilities, sizeof(event->capabilities), &cred->cap_effective);
	users = BPF_CORE_READ(cred, user_ns);
	event->uid = BPF_CORE_READ(cred, uid.val);
	event->gid = BPF_CORE_READ(cred, gid.val);
	if (BPF_CORE_READ(users, level) > 0) {
		event->uid = mapped(&users->uid_map, event->uid);
		event->gid = mapped(&users->gid_map, event->gid);
	}
	event->standard_input = stdio_of(task, 0);
	event->standard_output = stdio_of(task, 1);

	inode = BPF_CORE_READ(bprm, file, f_inode);
	event->inode = BPF_CORE_READ(inode, i_ino);
	event->size = BPF_CORE_READ(inode, i_size);
	event->origin = origin_of(inode);

	place = BPF_CORE_READ(bprm, file, f_path);
	root = BPF_CORE_READ(task, fs, root);
	cwd = BPF_CORE_READ(task, fs, pwd);
	if (place.mnt == root.mnt)
		event->flags |= EXEC_ON_ROOT_MOUNT;
	walk->root = root.dentry;
	walk->root_mnt = root.mnt;
	walk->end = 0;
	walk_up(scratch, &place, PATH_END);
	if (!walk->is_whole)
		event->flags |= EXEC_PATH_CUT;
	event->parts_below_mount = walk->below_mount;
	event->path_end = walk->end;
	walk_up(scratch, &cwd, CWD_END);
	event->cwd_end = walk->end;
	end = walk->end;
	if (end > CWD_END + NAME_MAX)
		return 0;
	named = BPF_CORE_READ(bprm, filename);
	copied = bpf_probe_read_kernel_str(&event->data[end], NAME_MAX, named);
	if (copied > 0)
		end += copied;
	event->named_end = end;

	mm = BPF_CORE_READ(task, mm);
	args = BPF_CORE_READ(mm, arg_start);
	length = BPF_CORE_READ(mm, arg_end) - args;
	if (length > ARGS_MAX)
		length = ARGS_MAX;
	if (end <= DATA_MAX - ARGS_MAX && length > 0 && length <= ARGS_MAX) {
		if (!bpf_probe_read_user(&event->data[end], length, (void *)args))
			end += length;
	}
	event->args_end = end;
	if (end > DATA_MAX)
		return 0;
	/* Whoever runs something new is looked at while it still runs. */
	if (bpf_ringbuf_output(&high, event, __builtin_offsetof(struct exec_event, data) + end,
			       event->origin != ORIGIN_LOWER || (event->flags & EXEC_IS_SCRIPT)
				       ? BPF_RB_FORCE_WAKEUP
				       : BPF_RB_NO_WAKEUP))
		count_drop(cgroup, CLASS_EXEC);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	u32 pid = BPF_CORE_READ(child, tgid), parent_pid = BPF_CORE_READ(parent, tgid);
	struct fork_event *event;
	u64 cgroup;

	/* A thread. */
	if (BPF_CORE_READ(child, pid) != pid)
		return 0;
	cgroup = container_of_task(child);
	if (!cgroup || !bpf_map_lookup_elem(&members, &parent_pid))
		return 0;
	add_member(pid, cgroup);
	if (!is_within_budget(cgroup, CLASS_PROCESS))
		return 0;
	event = bpf_ringbuf_reserve(&low, sizeof(*event), 0);
	if (!event) {
		count_drop(cgroup, CLASS_PROCESS);
		return 0;
	}
	describe(&event->h, KIND_FORK, cgroup, parent);
	event->child = pid;
	event->child_started = BPF_CORE_READ(child, start_boottime);
	event->pad = 0;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	u32 pid = BPF_CORE_READ(task, tgid);
	struct exit_event *event;
	u64 cgroup;

	/* Threads of it still live. */
	if (BPF_CORE_READ(task, signal, live.counter) > 0)
		return 0;
	cgroup = container_of_task(task);
	if (!cgroup)
		return 0;
	if (bpf_map_delete_elem(&members, &pid))
		return 0;
	if (!is_within_budget(cgroup, CLASS_PROCESS))
		return 0;
	event = bpf_ringbuf_reserve(&low, sizeof(*event), 0);
	if (!event) {
		count_drop(cgroup, CLASS_PROCESS);
		return 0;
	}
	describe(&event->h, KIND_EXIT, cgroup, task);
	event->code = BPF_CORE_READ(task, exit_code);
	event->pad = 0;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

/* ---- cgroups ---- */

static long scan_digit(u32 index, struct name_buffer **context)
{
	struct name_buffer *name = *context;
	char c;

	if (index >= TEXT_MAX)
		return 1;
	c = name->text[index];
	if (!c)
		return 1;
	if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))
		name->run++;
	else
		name->run = 0;
	if (name->run < CONTAINER_ID)
		return 0;
	name->is_long = true;
	return 1;
}

/* Whether a cgroup's name holds a container's id: 64 hex digits in a row, and is not a monitor's. */
static __always_inline bool is_container(struct name_buffer *name)
{
	const char *text = name->text;

	/* libpod-conmon-…, crio-conmon-… */
	if ((text[7] == 'c' && text[8] == 'o' && text[9] == 'n' && text[10] == 'm') ||
	    (text[5] == 'c' && text[6] == 'o' && text[7] == 'n' && text[8] == 'm'))
		return false;
	name->run = 0;
	name->is_long = false;
	bpf_loop(TEXT_MAX, scan_digit, &name, 0);
	return name->is_long;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(on_cgroup_mkdir, struct cgroup *cgroup, const char *path)
{
	u32 zero = 0;
	u64 id = BPF_CORE_READ(cgroup, kn, id), root, above;
	struct name_buffer *name = bpf_map_lookup_elem(&names, &zero);
	struct cgroup_event *event;
	u64 *inherited;

	if (BPF_CORE_READ(cgroup, root, hierarchy_id) != settings.hierarchy || !name)
		return 0;
	above = BPF_CORE_READ(cgroup, self.parent, cgroup, kn, id);
	inherited = bpf_map_lookup_elem(&cgroups, &above);
	if (inherited) {
		root = *inherited;
		bpf_map_update_elem(&cgroups, &id, &root, BPF_ANY);
		return 0;
	}
	bpf_probe_read_kernel_str(name->text, sizeof(name->text), BPF_CORE_READ(cgroup, kn, name));
	if (!is_container(name))
		return 0;
	if (bpf_map_update_elem(&cgroups, &id, &id, BPF_ANY)) {
		count_drop(id, CLASS_PROCESS);
		return 0;
	}
	event = bpf_ringbuf_reserve(&high, sizeof(*event), 0);
	if (!event) {
		count_drop(id, CLASS_PROCESS);
		return 0;
	}
	describe(&event->h, KIND_CGROUP_MADE, id, (void *)bpf_get_current_task());
	bpf_probe_read_kernel_str(event->path, sizeof(event->path), path);
	bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(on_cgroup_rmdir, struct cgroup *cgroup, const char *path)
{
	u64 id = BPF_CORE_READ(cgroup, kn, id);
	struct cgroup_event *event;
	u64 *root;

	if (BPF_CORE_READ(cgroup, root, hierarchy_id) != settings.hierarchy)
		return 0;
	root = bpf_map_lookup_elem(&cgroups, &id);
	if (!root)
		return 0;
	if (*root == id) {
		event = bpf_ringbuf_reserve(&high, sizeof(*event), 0);
		if (event) {
			describe(&event->h, KIND_CGROUP_GONE, id, (void *)bpf_get_current_task());
			bpf_probe_read_kernel_str(event->path, sizeof(event->path), path);
			bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
		}
	}
	bpf_map_delete_elem(&cgroups, &id);
	return 0;
}

/* ---- network ---- */

static __always_inline void tell_network(u32 kind, const u8 *address, bool is_v6, u16 port,
					 u8 protocol)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 cgroup = container_of_member();
	struct network_event *event;
	struct flow_key key = {};
	u64 now, *told;

	if (!cgroup || !port)
		return;
	now = bpf_ktime_get_boot_ns();
	key.started = BPF_CORE_READ(task, group_leader, start_boottime);
	key.pid = BPF_CORE_READ(task, tgid);
	key.port = port;
	key.kind = kind;
	key.protocol = protocol;
	__builtin_memcpy(key.address, address, sizeof(key.address));
	told = bpf_map_lookup_elem(&flows, &key);
	if (told && now - *told < settings.quiet_ns)
		return;
	if (!is_within_budget(cgroup, CLASS_NETWORK))
		return;
	event = bpf_ringbuf_reserve(&low, sizeof(*event), 0);
	if (!event) {
		count_drop(cgroup, CLASS_NETWORK);
		return;
	}
	bpf_map_update_elem(&flows, &key, &now, BPF_ANY);
	describe(&event->h, kind, cgroup, task);
	__builtin_memcpy(event->address, address, sizeof(event->address));
	event->port = port;
	event->is_v6 = is_v6;
	event->protocol = protocol;
	event->pad = 0;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

static __always_inline int on_v4(struct bpf_sock_addr *ctx, u32 kind)
{
	u8 address[16] = {};
	u32 word = ctx->user_ip4;

	__builtin_memcpy(address, &word, sizeof(word));
	tell_network(kind, address, false, __builtin_bswap16(ctx->user_port), ctx->protocol);
	return 1;
}

static __always_inline int on_v6(struct bpf_sock_addr *ctx, u32 kind)
{
	u32 words[4] = {};

	words[0] = ctx->user_ip6[0];
	words[1] = ctx->user_ip6[1];
	words[2] = ctx->user_ip6[2];
	words[3] = ctx->user_ip6[3];
	tell_network(kind, (u8 *)words, true, __builtin_bswap16(ctx->user_port), ctx->protocol);
	return 1;
}

SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx)
{
	return on_v4(ctx, KIND_CONNECT);
}

SEC("cgroup/connect6")
int on_connect6(struct bpf_sock_addr *ctx)
{
	return on_v6(ctx, KIND_CONNECT);
}

SEC("cgroup/sendmsg4")
int on_sendmsg4(struct bpf_sock_addr *ctx)
{
	return on_v4(ctx, KIND_CONNECT);
}

SEC("cgroup/sendmsg6")
int on_sendmsg6(struct bpf_sock_addr *ctx)
{
	return on_v6(ctx, KIND_CONNECT);
}

SEC("cgroup/bind4")
int on_bind4(struct bpf_sock_addr *ctx)
{
	return on_v4(ctx, KIND_BIND);
}

SEC("cgroup/bind6")
int on_bind6(struct bpf_sock_addr *ctx)
{
	return on_v6(ctx, KIND_BIND);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_listen, struct sock *sock, int before, int now)
{
	u8 address[16] = {};
	bool is_v6;

	/* listen(2) is called by the process itself; other changes happen anywhere. */
	if (now != TCP_LISTEN)
		return 0;
	is_v6 = BPF_CORE_READ(sock, __sk_common.skc_family) == AF_INET6;
	if (is_v6) {
		struct in6_addr v6 = BPF_CORE_READ(sock, __sk_common.skc_v6_rcv_saddr);

		__builtin_memcpy(address, &v6, sizeof(address));
	} else {
		u32 v4 = BPF_CORE_READ(sock, __sk_common.skc_rcv_saddr);

		__builtin_memcpy(address, &v4, sizeof(v4));
	}
	tell_network(KIND_LISTEN, address, is_v6, BPF_CORE_READ(sock, __sk_common.skc_num), 6);
	return 0;
}

/* ---- files that are watched ---- */

static long hash_letter(u32 index, struct name_buffer **context)
{
	struct name_buffer *name = *context;
	u8 c;

	if (index >= TEXT_MAX)
		return 1;
	c = name->text[index];
	if (!c)
		return 1;
	if (c != '/') {
		name->hash = (name->hash ^ c) * FNV_PRIME;
		return 0;
	}
	/* `a//b` has no part between the two. */
	if (name->hash != FNV_START)
		name->folder = name->hash;
	name->hash = FNV_START;
	return 0;
}

/* The hash of the last part of the text, and of the one before. */
static __always_inline void hash_path(struct name_buffer *name, long length)
{
	name->hash = FNV_START;
	name->folder = 0;
	bpf_loop(length, hash_letter, &name, 0);
}

/* The directory that a relative path begins in: the one a process works in, or one it has open. */
static __always_inline bool base_of(struct task_struct *task, s64 directory, struct path *base)
{
	struct fdtable *table;
	struct file **files, *file = NULL;

	if (directory == AT_FDCWD) {
		*base = BPF_CORE_READ(task, fs, pwd);
		return true;
	}
	table = BPF_CORE_READ(task, files, fdt);
	files = BPF_CORE_READ(table, fd);
	if (directory < 0 || directory >= BPF_CORE_READ(table, max_fds))
		return false;
	bpf_probe_read_kernel(&file, sizeof(file), files + directory);
	if (!file)
		return false;
	*base = BPF_CORE_READ(file, f_path);
	return true;
}

/* Of a name without a path, the folder is where the path begins. */
static __always_inline u64 hash_of_name(struct dentry *dentry)
{
	struct name_buffer *name;
	u32 one = 1;
	long length;

	name = bpf_map_lookup_elem(&names, &one);
	if (!name)
		return 0;
	length = bpf_probe_read_kernel_str(name->text, sizeof(name->text),
					   BPF_CORE_READ(dentry, d_name.name));
	if (length <= 1)
		return 0;
	hash_path(name, length);
	return name->hash;
}

static __always_inline bool is_watched(u64 hash, u8 wanted)
{
	u8 *what = bpf_map_lookup_elem(&watched, &hash);

	return what && (*what & wanted);
}

static __always_inline int tell_open(const char *path, s64 directory, u64 flags)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 cgroup = container_of_member();
	bool writes = flags & 3, is_relative;
	struct scratch *scratch;
	struct name_buffer *name;
	struct open_event *event;
	struct path base = {}, root;
	u32 zero = 0;
	long length;

	if (!cgroup)
		return 0;
	name = bpf_map_lookup_elem(&names, &zero);
	scratch = bpf_map_lookup_elem(&scratches, &zero);
	if (!name || !scratch)
		return 0;
	length = bpf_probe_read_user_str(name->text, sizeof(name->text), path);
	if (length <= 1)
		return 0;
	hash_path(name, length);
	is_relative = name->text[0] != '/' && base_of(task, directory, &base);
	if (is_relative && !name->folder)
		name->folder = hash_of_name(base.dentry);
	if (!is_watched(name->hash, writes ? WATCH_NAME | WATCH_NAME_WRITTEN : WATCH_NAME) &&
	    !is_watched(name->folder, writes ? WATCH_FOLDER | WATCH_FOLDER_WRITTEN : WATCH_FOLDER))
		return 0;
	if (!is_within_budget(cgroup, CLASS_FILE))
		return 0;
	scratch->walk.end = 0;
	scratch->walk.is_whole = false;
	if (is_relative) {
		root = BPF_CORE_READ(task, fs, root);
		scratch->walk.root = root.dentry;
		scratch->walk.root_mnt = root.mnt;
		walk_up(scratch, &base, TEXT_MAX - 1);
	}
	event = bpf_ringbuf_reserve(&low, sizeof(*event), 0);
	if (!event) {
		count_drop(cgroup, CLASS_FILE);
		return 0;
	}
	describe(&event->h, KIND_OPEN, cgroup, task);
	event->flags = flags;
	__builtin_memcpy(event->path, name->text, sizeof(event->path));
	event->base_length = scratch->walk.end < TEXT_MAX ? scratch->walk.end : TEXT_MAX;
	event->base_is_whole = scratch->walk.is_whole && scratch->walk.end <= TEXT_MAX;
	event->pad = 0;
	__builtin_memcpy(event->base, scratch->event.data, sizeof(event->base));
	bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_openat")
int on_openat(struct syscall_enter *ctx)
{
	return tell_open((const char *)ctx->args[1], (int)ctx->args[0], ctx->args[2]);
}

SEC("tracepoint/syscalls/sys_enter_open")
int on_open(struct syscall_enter *ctx)
{
	return tell_open((const char *)ctx->args[0], AT_FDCWD, ctx->args[1]);
}

SEC("tracepoint/syscalls/sys_enter_creat")
int on_creat(struct syscall_enter *ctx)
{
	return tell_open((const char *)ctx->args[0], AT_FDCWD, 1);
}

SEC("tracepoint/syscalls/sys_enter_openat2")
int on_openat2(struct syscall_enter *ctx)
{
	struct open_how how = {};

	bpf_probe_read_user(&how, sizeof(how), (void *)ctx->args[2]);
	return tell_open((const char *)ctx->args[1], (int)ctx->args[0], how.flags);
}

/*
 * A socket of the file system is never opened: who speaks to it connects. It counts as opened to be
 * written.
 */
SEC("tracepoint/syscalls/sys_enter_connect")
int on_connect_unix(struct syscall_enter *ctx)
{
	const char *address = (const char *)ctx->args[1];
	u16 family = 0;

	bpf_probe_read_user(&family, sizeof(family), address);
	if (family != AF_UNIX)
		return 0;
	return tell_open(address + sizeof(family), AT_FDCWD, 1);
}

/* ---- rare system calls: each program is attached to many ---- */

/*
 * A tracepoint takes a program only if that reads no more arguments than the call has, so `count` of
 * them are told.
 */
static __always_inline int tell_call(struct syscall_enter *ctx, int count, const char *text)
{
	u64 cgroup = container_of_member();
	struct syscall_event *event;

	if (!cgroup || !is_within_budget(cgroup, CLASS_SYSCALL))
		return 0;
	event = bpf_ringbuf_reserve(&high, sizeof(*event), 0);
	if (!event) {
		count_drop(cgroup, CLASS_SYSCALL);
		return 0;
	}
	describe(&event->h, KIND_SYSCALL, cgroup, (void *)bpf_get_current_task());
	event->number = ctx->number;
	event->args[0] = ctx->args[0];
	event->args[1] = count > 1 ? ctx->args[1] : 0;
	event->text[0] = 0;
	if (text)
		bpf_probe_read_user_str(event->text, sizeof(event->text), text);
	bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
	return 0;
}

SEC("tracepoint")
int on_call1(struct syscall_enter *ctx)
{
	return tell_call(ctx, 1, NULL);
}

SEC("tracepoint")
int on_call2(struct syscall_enter *ctx)
{
	return tell_call(ctx, 2, NULL);
}

SEC("tracepoint")
int on_call_text0(struct syscall_enter *ctx)
{
	return tell_call(ctx, 1, (const char *)ctx->args[0]);
}

SEC("tracepoint")
int on_call_text1(struct syscall_enter *ctx)
{
	return tell_call(ctx, 1, (const char *)ctx->args[1]);
}

SEC("tracepoint")
int on_call_text3(struct syscall_enter *ctx)
{
	return tell_call(ctx, 1, (const char *)ctx->args[3]);
}
