//! Words that fit their number.

/// `1 node`, `2 nodes`; `1 address`, `2 addresses`.
pub fn count(number: usize, one: &str) -> String {
    let plural = match (number, one.ends_with("ss")) {
        (1, _) => "",
        (_, true) => "es",
        _ => "s",
    };
    format!("{number} {one}{plural}")
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn plurals_are_right() {
        for (number, one, said) in [
            (0, "node", "0 nodes"),
            (1, "node", "1 node"),
            (2, "node", "2 nodes"),
            (1, "hardware address", "1 hardware address"),
            (2, "hardware address", "2 hardware addresses"),
        ] {
            assert_eq!(count(number, one), said);
        }
    }
}
