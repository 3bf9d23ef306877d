// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Cuts a container off: only what is said to and by the addresses of a list passes.
 *
 * Attached to the container's cgroup and pinned, so it outlives the agent. Packets of sockets that
 * were open before are cut, too. A packet socket passes below all this: who may make one is told of.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ADDRESS_BITS 128
#define PORTS_MAX 8
#define TCP 6
#define UDP 17
#define FRAGMENT_OFFSET 0x1fff

/* A range of addresses; those of version 4 as ::ffff:a.b.c.d. */
struct range {
	u32 bits;
	u8 address[16];
};

/* Ports of the other side; none: all, of every protocol. */
struct ports {
	u32 count;
	u16 port[PORTS_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct range);
	__type(value, struct ports);
} allowed SEC(".maps");

/* Packets and connections that were cut. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} cut SEC(".maps");

static __always_inline int refuse(void)
{
	u32 zero = 0;
	u64 *count = bpf_map_lookup_elem(&cut, &zero);

	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

static __always_inline void map_v4(struct range *range, const u8 *address)
{
	range->address[10] = 0xff;
	range->address[11] = 0xff;
	__builtin_memcpy(&range->address[12], address, 4);
}

static __always_inline bool has_port(const struct ports *ports, u16 port)
{
	for (int i = 0; i < PORTS_MAX; i++) {
		if (i < ports->count && ports->port[i] == port)
			return true;
	}
	return false;
}

static __always_inline int judge(struct __sk_buff *packet, bool is_sent)
{
	struct range range = { .bits = ADDRESS_BITS };
	struct ports *ports;
	u8 head[40], first, protocol;
	u32 at;
	u16 pair[2];

	if (bpf_skb_load_bytes(packet, 0, &first, 1))
		return refuse();
	if (first >> 4 == 4) {
		if (bpf_skb_load_bytes(packet, 0, head, 20))
			return refuse();
		map_v4(&range, is_sent ? &head[16] : &head[12]);
		protocol = head[9];
		at = (first & 15) * 4;
		/* The rest of a packet whose beginning was refused says nothing by itself. */
		if (((head[6] << 8 | head[7]) & FRAGMENT_OFFSET) != 0)
			at = 0;
	} else {
		if (bpf_skb_load_bytes(packet, 0, head, 40))
			return refuse();
		__builtin_memcpy(range.address, is_sent ? &head[24] : &head[8], 16);
		protocol = head[6];
		at = 40;
	}
	ports = bpf_map_lookup_elem(&allowed, &range);
	if (!ports)
		return refuse();
	if (!ports->count || !at)
		return 1;
	if ((protocol != TCP && protocol != UDP) || bpf_skb_load_bytes(packet, at, pair, sizeof(pair)))
		return refuse();
	return has_port(ports, __builtin_bswap16(is_sent ? pair[1] : pair[0])) ? 1 : refuse();
}

SEC("cgroup_skb/ingress")
int on_received(struct __sk_buff *packet)
{
	return judge(packet, false);
}

SEC("cgroup_skb/egress")
int on_sent(struct __sk_buff *packet)
{
	return judge(packet, true);
}

/* A connection is refused at once, and not by silence. */
static __always_inline int judge_destination(struct range *range, u32 port)
{
	struct ports *ports = bpf_map_lookup_elem(&allowed, range);

	if (!ports)
		return refuse();
	return !ports->count || has_port(ports, __builtin_bswap16(port)) ? 1 : refuse();
}

static __always_inline int judge_v4(struct bpf_sock_addr *ctx)
{
	struct range range = { .bits = ADDRESS_BITS };
	u32 word = ctx->user_ip4;

	map_v4(&range, (u8 *)&word);
	return judge_destination(&range, ctx->user_port);
}

static __always_inline int judge_v6(struct bpf_sock_addr *ctx)
{
	struct range range = { .bits = ADDRESS_BITS };
	u32 words[4];

	words[0] = ctx->user_ip6[0];
	words[1] = ctx->user_ip6[1];
	words[2] = ctx->user_ip6[2];
	words[3] = ctx->user_ip6[3];
	__builtin_memcpy(range.address, words, sizeof(range.address));
	return judge_destination(&range, ctx->user_port);
}

SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx)
{
	return judge_v4(ctx);
}

SEC("cgroup/connect6")
int on_connect6(struct bpf_sock_addr *ctx)
{
	return judge_v6(ctx);
}

SEC("cgroup/sendmsg4")
int on_sendmsg4(struct bpf_sock_addr *ctx)
{
	return judge_v4(ctx);
}

SEC("cgroup/sendmsg6")
int on_sendmsg6(struct bpf_sock_addr *ctx)
{
	return judge_v6(ctx);
}
