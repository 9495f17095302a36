//! Elements of DER (ITU-T X.690 §8.1, §10.1), for certificates and private keys.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// Reads elements one after the other.
pub(super) struct Der<'d>(pub(super) &'d [u8]);

pub(super) struct Element<'d> {
    pub(super) whole: &'d [u8],
    pub(super) content: &'d [u8],
}

impl<'d> Der<'d> {
    /// The elements of `der`, a single SEQUENCE. `None` if it is anything else.
    pub(super) fn of_sequence(der: &'d [u8]) -> Option<Self> {
        let element = Self(der).take(SEQUENCE)?;
        (element.whole.len() == der.len()).then_some(Self(element.content))
    }

    /// Takes the next element. `None`, and nothing is taken, if it is malformed or has another tag.
    pub(super) fn take(&mut self, tag: u8) -> Option<Element<'d>> {
        let rest = self.0.strip_prefix(&[tag])?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // A length of one to three bytes: at most 16 MiB.
            0x81..=0x83 => {
                let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(len)?;
        let whole = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Some(Element { whole, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_is_taken_whole_or_not_at_all() {
        let long = [&[0x30, 0x81, 0x80][..], &[7; 128]].concat();
        let longer = [&[0x30, 0x82, 1, 0][..], &[7; 256], b"rest"].concat();
        // (input, lengths of the header, the content and the rest)
        let cases: [(&[u8], Option<[usize; 3]>); 9] = [
            (b"\x30\x00", Some([2, 0, 0])),
            (b"\x30\x02abc", Some([2, 2, 1])),
            (&long, Some([3, 128, 0])),
            (&longer, Some([4, 256, 4])),
            (b"", None),
            (b"\x30", None),
            (b"\x02\x00", None),
            (b"\x30\x03ab", None),
            (b"\x30\x84\x00\x00\x00\x01a", None),
        ];
        for (input, expected) in cases {
            let mut der = Der(input);
            let element = der.take(SEQUENCE);
            let lens = element.map(|Element { whole, content }| {
                [whole.len() - content.len(), content.len(), der.0.len()]
            });
            assert_eq!(lens, expected, "{input:?}");
            assert!(expected.is_some() || der.0 == input, "{input:?}");
            let is_sequence = expected.is_some_and(|[.., rest]| rest == 0);
            assert_eq!(Der::of_sequence(input).is_some(), is_sequence, "{input:?}");
        }
    }
}
