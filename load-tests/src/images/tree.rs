//! A file system as lists of names: one per layer, of about the same size.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// Names of everything below `tree`, each with a NUL behind it, parents first, in so many lists.
pub(super) fn split(tree: &Path, lists: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    walk(tree, Path::new(""), &mut found)?;
    let all: u64 = found.iter().map(|(_, bytes)| bytes).sum();
    let share = all / lists.max(1) as u64 + 1;
    let mut split = vec![Vec::new(); lists.max(1)];
    let mut before = 0;
    for (path, bytes) in &found {
        let at = usize::try_from(before / share)?.min(split.len() - 1);
        let list: &mut Vec<u8> = &mut split[at];
        list.extend_from_slice(path.as_os_str().as_bytes());
        list.push(0);
        before += bytes;
    }
    Ok(split)
}

/// Everything below a directory, sorted, with the bytes that each takes in an archive.
fn walk(tree: &Path, below: &Path, found: &mut Vec<(PathBuf, u64)>) -> anyhow::Result<()> {
    let dir = tree.join(below);
    let listed = fs::read_dir(&dir).with_context(|| format!("listing `{}`", dir.display()))?;
    let mut names: Vec<_> = listed
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    names.sort();
    for name in names {
        let path = below.join(name);
        let metadata = tree.join(&path).symlink_metadata()?;
        let content = if metadata.is_file() {
            metadata.len()
        } else {
            0
        };
        found.push((path.clone(), content + 512));
        if metadata.is_dir() {
            walk(tree, &path, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_of_about_the_same_size_and_together_everything() {
        let dir = testkit::temp_dir();
        fs::create_dir(dir.path().join("d")).unwrap();
        for number in 0..20 {
            fs::write(dir.path().join(format!("d/{number:02}")), [0; 1000]).unwrap();
        }
        let lists = split(dir.path(), 4).unwrap();
        let counts: Vec<_> = lists
            .iter()
            .map(|list| list.split(|byte| *byte == 0).count() - 1)
            .collect();
        assert_eq!(counts.iter().sum::<usize>(), 21);
        assert!(
            counts.iter().all(|count| (4..=7).contains(count)),
            "{counts:?}"
        );
        assert!(lists[0].starts_with(b"d\0d/00\0"));
    }
}
