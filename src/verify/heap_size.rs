//! The heap memory of claims, which is part of their weight in the token cache.

use serde_json::{Map, Value};

/// The overhead of an allocator for each allocation, in bytes.
const ALLOCATION: usize = 16;

/// An upper bound on the heap memory of the claims, in bytes: at most about twice the real size.
pub(super) fn heap_size(map: &Map<String, Value>) -> usize {
    if map.is_empty() {
        return 0;
    }
    map_size(map.len())
        + map
            .iter()
            .map(|(name, value)| name.capacity() + ALLOCATION + value_size(value))
            .sum::<usize>()
}

/// The memory that a map with this many members allocates, without what the members allocate.
fn map_size(len: usize) -> usize {
    let member = size_of::<(String, Value)>();
    // With serde_json's `preserve_order`, which any crate of a build can turn on, a map is an
    // `IndexMap`, which makes a value larger. Otherwise it is a `BTreeMap`, whose nodes have room
    // for 11 members and hold at least five of them after a split.
    if size_of::<Value>() > 4 * size_of::<usize>() {
        let buckets = (len + len / 7 + 1).next_power_of_two().max(4);
        buckets * (member + 2 * size_of::<usize>() + 1) + 2 * ALLOCATION
    } else {
        let nodes = if len <= 11 { 1 } else { len.div_ceil(5) };
        nodes * (11 * member + 6 * size_of::<usize>() + ALLOCATION)
    }
}

/// The parser bounds the recursion to 32 levels.
fn value_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 0,
        // Only with serde_json's `arbitrary_precision` is a number on the heap, as text.
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

    /// Does not measure the allocator's overhead; `tests/memory.rs` measures the whole process.
    #[test]
    fn estimate_is_one_to_two_times_the_real_size() {
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
