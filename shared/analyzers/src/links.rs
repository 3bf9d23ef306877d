//! Hard links as a layer writes them.

/// The path in the same layer that a hard link names; `None` where it cannot be told without the
/// tree.
pub(crate) fn target(link: &str) -> Option<String> {
    let mut path = String::with_capacity(link.len());
    for segment in link.split('/') {
        match segment {
            "" | "." => {}
            ".." => return None,
            _ => {
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(segment);
            }
        }
    }
    (!path.is_empty()).then_some(path)
}
