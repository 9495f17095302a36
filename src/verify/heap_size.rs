//! The heap memory of claims, which decides how much of the token cache they take.

use serde_json::{Map, Value};

/// What an allocator may add to each allocation.
const ALLOCATION: usize = 16;

/// An upper bound on the heap memory of the claims, in bytes: at most about twice the real size.
pub(super) fn heap_size(map: &Map<String, Value>) -> usize {
    if map.is_empty() {
        return 0;
    }
    room(map.len())
        + map
            .iter()
            .map(|(name, value)| name.capacity() + ALLOCATION + value_size(value))
            .sum::<usize>()
}

/// What a map of this many members allocates for itself.
fn room(len: usize) -> usize {
    let member = size_of::<(String, Value)>();
    // With serde_json's `preserve_order`, which any crate of a build can turn on, a map is an
    // `IndexMap`, and a value is larger for it. Otherwise it is a `BTreeMap` of nodes for 11
    // members, of which a split leaves five at least.
    if size_of::<Value>() > 4 * size_of::<usize>() {
        let buckets = (len + len / 7 + 1).next_power_of_two().max(4);
        buckets * (member + 2 * size_of::<usize>() + 1) + 2 * ALLOCATION
    } else {
        let nodes = if len <= 11 { 1 } else { len.div_ceil(5) };
        nodes * (11 * member + 6 * size_of::<usize>() + ALLOCATION)
    }
}

/// Recursion is bounded by the parser, which allows 32 levels.
fn value_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 0,
        // On the heap only with serde_json's `arbitrary_precision`, as text.
        Value::Number(_) if size_of::<serde_json::Number>() <= 16 => 0,
        Value::Number(number) => number.to_string().len() + ALLOCATION,
        Value::String(text) => text.capacity() + ALLOCATION,
        Value::Array(elements) => {
            elements.capacity() * size_of::<Value>()
                + ALLOCATION
                + elements.iter().map(value_size).sum::<usize>()
        }
        Value::Object(members) => heap_size(members),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The allocator's own overhead is not measured here; `tests/memory.rs` looks at the whole
    /// process.
    #[test]
    fn heap_size_is_between_once_and_twice_the_real_size() {
        let members = |count: usize| {
            (0..count).map(|at| format!(r#""claim{at}":1"#)).collect::<Vec<_>>().join(",")
        };
        let texts = [
            "{}".to_owned(),
            r#"{"exp":1}"#.to_owned(),
            r#"{"exp":4953600000,"iat":1,"iss":"https://api.example.com","source":"microservice","aud":"billing"}"#
                .to_owned(),
            format!(r#"{{"a":"{}"}}"#, "x".repeat(3000)),
            format!(r#"{{"a":[{}]}}"#, ["[[[[]]]]"; 300].join(",")),
            format!(r#"{{"a":[{}]}}"#, [r#"{"":{"":1}}"#; 300].join(",")),
            format!(r#"{{"a":[{}]}}"#, [r#""x""#; 1000].join(",")),
            format!("{{{}}}", members(11)),
            format!("{{{}}}", members(12)),
            format!("{{{}}}", members(15)),
            format!("{{{}}}", members(29)),
            format!("{{{}}}", members(57)),
            format!("{{{}}}", members(450)),
        ];
        for text in texts {
            let mut claims = None;
            let taken =
                allocation_counter::measure(|| claims = crate::jose::json::object(text.as_bytes()))
                    .bytes_current;
            let taken = usize::try_from(taken).unwrap();
            let estimate = heap_size(&claims.unwrap());
            assert!(
                (taken..=2 * taken).contains(&estimate),
                "{taken} {estimate} {}",
                &text[..text.len().min(40)]
            );
        }
    }
}
