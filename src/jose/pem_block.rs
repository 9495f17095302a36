//! Reads the blocks of a text in PEM (RFC 7468): between a BEGIN and an END line, with any text
//! around them. Line breaks are optional, because some configuration formats replace them with
//! spaces.

use std::{iter, str};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// The longest label that is printed.
const MAX_LABEL_LEN: usize = 40;

/// One block. Its body is decoded on demand.
pub(super) struct Block<'t> {
    label: &'t str,
    /// `None` if the END line is missing.
    body: Option<&'t [u8]>,
}

/// A BEGIN line without a label that can be printed.
pub(super) struct NoLabel;

/// Whether the text holds the beginning of a block.
pub(crate) fn has_block(text: &[u8]) -> bool {
    split_once(text, BEGIN).is_some()
}

/// The blocks of a text. A block without its END line is the last one.
pub(super) fn blocks(text: &[u8]) -> impl Iterator<Item = Result<Block<'_>, NoLabel>> {
    let mut rest = text;
    iter::from_fn(move || {
        let (_, after) = split_once(rest, BEGIN)?;
        rest = &[];
        let Some((label, after)) = split_label(after) else { return Some(Err(NoLabel)) };
        let end = [END, label.as_bytes(), DASHES].concat();
        let body = split_once(after, &end).map(|(body, after)| {
            rest = after;
            body
        });
        Some(Ok(Block { label, body }))
    })
}

/// The label of a BEGIN line, and the text after the line. After a damaged line the text before the
/// next dashes may hold key material, so it must have the form of a label (RFC 7468 §3).
fn split_label(text: &[u8]) -> Option<(&str, &[u8])> {
    let (label, after) = split_once(text, DASHES)?;
    let is_label_char =
        |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" .".contains(byte);
    let is_label = label.len() <= MAX_LABEL_LEN && label.iter().all(is_label_char);
    Some((str::from_utf8(label).ok().filter(|_| is_label)?, after))
}

fn split_once<'t>(text: &'t [u8], separator: &[u8]) -> Option<(&'t [u8], &'t [u8])> {
    let at = text.windows(separator.len()).position(|window| window == separator)?;
    Some((&text[..at], &text[at + separator.len()..]))
}

impl<'t> Block<'t> {
    /// What the BEGIN line names, such as `PUBLIC KEY`. May be printed.
    pub(super) fn label(&self) -> &'t str {
        self.label
    }

    /// Whether the body has the header `Proc-Type: 4,ENCRYPTED` (RFC 1421 §4.6.1.1).
    pub(super) fn is_encrypted(&self) -> bool {
        self.body.is_some_and(|body| split_once(body, b"4,ENCRYPTED").is_some())
    }

    /// The decoded body, or why there is none. Neither leaves a copy of a private key in memory.
    pub(super) fn der(&self) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let body = self.body.ok_or("the END line is missing")?;
        let mut base64 = Zeroizing::new(Vec::with_capacity(body.len()));
        base64.extend(body.iter().filter(|byte| !byte.is_ascii_whitespace()));
        let mut der = Zeroizing::new(vec![0; base64::decoded_len_estimate(base64.len())]);
        let len =
            STANDARD.decode_slice(&*base64, &mut der).map_err(|_| "the block is not base64")?;
        der.truncate(len);
        Ok(der)
    }
}
