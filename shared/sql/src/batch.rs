//! Many rows in one statement, with few different texts, so that each is prepared once.

use crate::{Dialect, Value};

/// Rows of one statement at most: beyond, the time for each row hardly falls.
const ROWS_MAX: usize = 256;
/// Octets of one statement at most: MySQL's smallest usual `max_allowed_packet` is 16 MiB.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// `?, ?, ?`
pub fn placeholders(count: usize) -> String {
    let mut text = "?, ".repeat(count);
    text.truncate(text.len().saturating_sub(2));
    text
}

/// `(?, ?), (?, ?)`: for VALUES.
pub fn tuples(rows: usize, columns: usize) -> String {
    let tuple = format!("({}), ", placeholders(columns));
    let mut text = tuple.repeat(rows);
    text.truncate(text.len().saturating_sub(2));
    text
}

/// Makes a list for `IN (...)` as long as the next power of two, by repeating its last value, and gives its length. An empty
/// list becomes one NULL, which nothing equals.
pub fn pad(list: &mut Vec<Value>) -> usize {
    let Some(last) = list.last().cloned() else {
        list.push(Value::Null);
        return 1;
    };
    let length = list.len().next_power_of_two();
    list.resize(length, last);
    length
}

/// Splits the rows of an insertion, `columns` values each, into statements: sizes are powers of two up to 256 rows, below the
/// database's limits of parameters and octets.
pub fn split_rows(dialect: Dialect, columns: usize, values: Vec<Value>) -> Vec<Vec<Value>> {
    let columns = columns.max(1);
    let most = ROWS_MAX.min((dialect.max_parameters() / columns).max(1));
    let mut statements = Vec::new();
    let mut left = values.len() / columns;
    let mut values = values.into_iter().peekable();
    while left > 0 {
        let mut rows = prev_power_of_two(left.min(most));
        let mut chunk: Vec<Value> = Vec::with_capacity(rows * columns);
        let mut bytes = 0;
        let mut taken = 0;
        while taken < rows {
            for _ in 0..columns {
                if let Some(value) = values.next() {
                    bytes += value.weight();
                    chunk.push(value);
                }
            }
            taken += 1;
            if bytes > BYTES_MAX {
                rows = taken;
            }
        }
        left -= taken;
        statements.push(chunk);
    }
    statements
}

fn prev_power_of_two(count: usize) -> usize {
    if count == 0 {
        0
    } else {
        1 << (usize::BITS - 1 - count.leading_zeros())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_are_split_without_loss_in_few_sizes() {
        for rows in [0usize, 1, 2, 3, 100, 256, 257, 1000] {
            let values: Vec<Value> = (0..rows as i64 * 3).map(Value::from).collect();
            let parts = split_rows(Dialect::Sqlite, 3, values.clone());
            assert!(
                parts
                    .iter()
                    .all(|part| (part.len() / 3).is_power_of_two() && part.len() <= 768)
            );
            assert_eq!(parts.concat(), values);
        }
    }

    #[test]
    fn large_rows_go_alone() {
        let big = Value::Blob(vec![0; 3 * 1024 * 1024]);
        let parts = split_rows(Dialect::MySql, 1, vec![big; 4]);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn lists_are_padded() {
        let mut list = args![1, 2, 3];
        assert_eq!(pad(&mut list), 4);
        assert_eq!(list, args![1, 2, 3, 3]);
        assert_eq!(pad(&mut Vec::new()), 1);
        assert_eq!(tuples(2, 2), "(?, ?), (?, ?)");
    }

    use crate::args;
}
