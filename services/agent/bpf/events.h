/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What travels from the kernel to the agent. `src/raw.rs` reads it byte by byte: whoever changes one
 * changes the other. Numbers are in the machine's order; texts end with a zero.
 */
#ifndef TIDEWAITER_EVENTS_H
#define TIDEWAITER_EVENTS_H

enum kind {
	KIND_EXEC = 1,
	KIND_FORK = 2,
	KIND_EXIT = 3,
	KIND_CONNECT = 4,
	KIND_BIND = 5,
	KIND_LISTEN = 6,
	KIND_OPEN = 7,
	KIND_SYSCALL = 8,
	KIND_CGROUP_MADE = 9,
	KIND_CGROUP_GONE = 10,
};

/* What is counted together when it cannot be sent. */
enum class {
	CLASS_EXEC = 0,
	CLASS_PROCESS = 1,
	CLASS_NETWORK = 2,
	CLASS_FILE = 3,
	CLASS_SYSCALL = 4,
};

enum origin {
	ORIGIN_LOWER = 0,
	ORIGIN_UPPER = 1,
	ORIGIN_TMPFS = 2,
	ORIGIN_OTHER = 3,
	ORIGIN_UNLINKED = 4,
};

enum stdio {
	STDIO_OTHER = 0,
	STDIO_FILE = 1,
	STDIO_PIPE = 2,
	STDIO_SOCKET = 3,
	STDIO_UNIX_SOCKET = 4,
	STDIO_TERMINAL = 5,
};

/* What is watched of a name, in bits: `src/watch.rs`. */
enum watch {
	WATCH_NAME = 1,
	/* Files in a folder of that name. */
	WATCH_FOLDER = 2,
	/* The same, where they are opened to be written. */
	WATCH_NAME_WRITTEN = 4,
	WATCH_FOLDER_WRITTEN = 8,
};

/* Flags of an exec. */
enum {
	/* It has a controlling terminal. */
	EXEC_TERMINAL = 1,
	/* Its parent is not of the container. */
	EXEC_FROM_OUTSIDE = 2,
	/* It is the first process of its process namespace. */
	EXEC_FIRST = 4,
	/* The file lies on the mount that is the process's root. */
	EXEC_ON_ROOT_MOUNT = 16,
	/* The path has more parts than are told. */
	EXEC_PATH_CUT = 32,
	/* The kernel runs an interpreter: what was named is a script. */
	EXEC_IS_SCRIPT = 64,
};

#define PARTS_MAX 32
#define NAME_MAX 256
#define PATH_END 1200
#define CWD_END 2400
#define ARGS_MAX 1024
#define DATA_MAX 5120
#define TEXT_MAX 256

struct header {
	u32 kind;
	/* The process, as the host counts. */
	u32 pid;
	/* Nanoseconds since the boot. */
	u64 at;
	/* The container's cgroup. */
	u64 cgroup;
	/* When the process began. */
	u64 started;
};

struct exec_event {
	struct header h;
	u64 parent_started;
	u64 capabilities;
	u64 inode;
	u64 size;
	u32 parent;
	u32 uid;
	u32 gid;
	u16 flags;
	u8 origin;
	u8 standard_input;
	u8 standard_output;
	/* How many parts of the path, from its end, lie below the mount that holds the file. */
	u8 parts_below_mount;
	/* Where in `data` each thing ends: path, working directory (names from the last to the first),
	 * what was named, arguments. */
	u16 path_end;
	u16 cwd_end;
	u16 named_end;
	u16 args_end;
	u32 pad;
	char data[DATA_MAX];
};

struct fork_event {
	struct header h;
	u64 child_started;
	u32 child;
	u32 pad;
};

struct exit_event {
	struct header h;
	u32 code;
	u32 pad;
};

struct network_event {
	struct header h;
	u8 address[16];
	u16 port;
	u8 is_v6;
	u8 protocol;
	u32 pad;
};

struct open_event {
	struct header h;
	u64 flags;
	char path[TEXT_MAX];
	/* Of a relative path, where it begins: names from the last to the first, each ended by a zero. */
	u16 base_length;
	u16 base_is_whole;
	u32 pad;
	char base[TEXT_MAX];
};

struct syscall_event {
	struct header h;
	u64 number;
	u64 args[2];
	char text[TEXT_MAX];
};

struct cgroup_event {
	struct header h;
	char path[TEXT_MAX];
};

#endif
