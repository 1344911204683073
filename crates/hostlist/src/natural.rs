//! The order in which people count nodes.

use std::cmp::Ordering;

/// Compares names with their numbers as numbers: `r2n1` before `r10n1`, `n1` before `n01` before `n2`.
///
/// A total order, and equal only for equal texts: names are compared as sequences of numbers and other bytes, numbers by value
/// and then by how they are padded.
pub fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (left, right) = (digits(a), digits(b));
        if left.is_empty() || right.is_empty() {
            let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_first(), b.split_first()) else {
                return a.len().cmp(&b.len());
            };
            match x.cmp(y) {
                Ordering::Equal => (a, b) = (rest_a, rest_b),
                other => return other,
            }
            continue;
        }
        let (x, y) = (significant(left), significant(right));
        let order = (x.len().cmp(&y.len()))
            .then_with(|| x.cmp(y))
            .then_with(|| left.len().cmp(&right.len()));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (&a[left.len()..], &b[right.len()..]);
    }
}

/// The number that `text` begins with.
fn digits(text: &[u8]) -> &[u8] {
    let end = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    &text[..end]
}

fn significant(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}
