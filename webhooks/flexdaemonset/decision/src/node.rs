//! What is known of a node.

use crate::resource::{PerResource, SizedResource};

/// A node: its labels, and what it can give to pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Labels, by key.
    labels: Box<[(Box<str>, Box<str>)]>,
    /// `status.allocatable` in millicores and bytes; none where the node doesn't say, or what can't be read.
    pub allocatable: PerResource<Option<i64>>,
}

impl Node {
    /// A node with these labels whose `status.allocatable` has these quantities.
    pub fn new<'n>(
        labels: impl IntoIterator<Item = (&'n str, &'n str)>,
        allocatable: impl Fn(&str) -> Option<&'n str>,
    ) -> Self {
        let mut labels: Vec<_> = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        labels.sort();
        let read = |resource: SizedResource| {
            let amount = resource.parse(allocatable(resource.name())?).ok()?;
            Some(amount).filter(|amount| *amount >= 0)
        };
        Self { labels: labels.into(), allocatable: PerResource::from_fn(read) }
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let index = self.labels.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        self.labels.get(index).map(|(_, value)| &**value)
    }
}
