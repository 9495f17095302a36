//! [`NonEmpty`]: a list with at least one item.

/// A list with at least one item. The first one is not in the vector, so that a list with one item
/// is cloned without an allocation.
#[derive(Clone, Debug)]
pub(super) struct NonEmpty<T> {
    first: T,
    others: Vec<T>,
}

impl<T> NonEmpty<T> {
    pub(super) fn of_one(first: T) -> Self {
        Self { first, others: Vec::new() }
    }

    /// `None` if there are no items.
    pub(super) fn collect(items: impl IntoIterator<Item = T>) -> Option<Self> {
        let mut items = items.into_iter();
        Some(Self { first: items.next()?, others: items.collect() })
    }

    /// A list of what `make` returns for each item, in the same order.
    pub(super) fn map<U>(&self, make: impl Fn(&T) -> U) -> NonEmpty<U> {
        NonEmpty { first: make(&self.first), others: self.others.iter().map(make).collect() }
    }

    /// The item at this index, which must be less than the number of items.
    pub(super) fn get(&self, index: usize) -> &T {
        match index {
            0 => &self.first,
            _ => &self.others[index - 1],
        }
    }

    /// As [`get`](Self::get).
    pub(super) fn get_mut(&mut self, index: usize) -> &mut T {
        match index {
            0 => &mut self.first,
            _ => &mut self.others[index - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_finds_the_items_in_their_order() {
        assert!(NonEmpty::<u8>::collect([]).is_none());
        for (mut list, expected) in [
            (NonEmpty::of_one(1), &[1][..]),
            (NonEmpty::collect([1]).unwrap(), &[1]),
            (NonEmpty::collect([1, 2, 3]).unwrap(), &[1, 2, 3]),
        ] {
            let doubled = list.map(|item| 2 * item);
            for (index, item) in expected.iter().enumerate() {
                assert_eq!((list.get(index), doubled.get(index)), (item, &(2 * item)));
                *list.get_mut(index) += 7;
                assert_eq!(*list.get(index), item + 7);
            }
        }
    }
}
