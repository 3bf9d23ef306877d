/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Where a file's content comes from: the image, the container, or neither. */
#ifndef TIDEWAITER_ORIGIN_H
#define TIDEWAITER_ORIGIN_H

#define OVERLAY_MAGIC 0x794c7630
#define TMPFS_MAGIC 0x01021994
#define RAMFS_MAGIC 0x858458f6

static __always_inline u8 origin_of(struct inode *inode)
{
	unsigned long magic = BPF_CORE_READ(inode, i_sb, s_magic);
	struct dentry *upper = NULL;

	if (BPF_CORE_READ(inode, i_nlink) == 0)
		return ORIGIN_UNLINKED;
	if (magic == TMPFS_MAGIC || magic == RAMFS_MAGIC)
		return ORIGIN_TMPFS;
	if (magic != OVERLAY_MAGIC)
		return ORIGIN_OTHER;
	if (bpf_core_type_exists(struct ovl_inode)) {
		void *whole = (void *)inode - bpf_core_field_offset(struct ovl_inode, vfs_inode);

		upper = BPF_CORE_READ((struct ovl_inode *)whole, __upperdentry);
	} else {
		/* A module's types are not in the kernel's BTF; the field follows the inode. */
		bpf_probe_read_kernel(&upper, sizeof(upper),
				      (void *)inode + bpf_core_type_size(struct inode));
	}
	return upper ? ORIGIN_UPPER : ORIGIN_LOWER;
}

#endif
