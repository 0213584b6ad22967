//! What is bound to a statement's parameters.

use std::fmt;

/// A parameter. `Debug` shows kinds and lengths only: content never reaches a log by accident.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// NULL, of whatever type the column has.
    Null,
    /// A 64-bit integer.
    Int(i64),
    /// Text in UTF-8, without NUL (which PostgreSQL refuses).
    Text(String),
    /// Octets.
    Blob(Vec<u8>),
}

/// Makes the list of parameters of one statement: `args![account, "name", blob]`.
#[macro_export]
macro_rules! args {
    () => { ::std::vec::Vec::<$crate::Value>::new() };
    ($($value:expr),+ $(,)?) => { ::std::vec![$($crate::Value::from($value)),+] };
}

impl Value {
    /// About how many octets it takes on its way to the database.
    pub fn weight(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Int(_) => 8,
            Self::Text(text) => text.len() + 4,
            Self::Blob(blob) => blob.len() + 4,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Int(_) => f.write_str("int"),
            Self::Text(text) => write!(f, "text of {} octets", text.len()),
            Self::Blob(blob) => write!(f, "{} octets", blob.len()),
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(i64::from(value))
    }
}

/// The same 64 bits: [`crate::Row::u64`] gives the number back. Numbers above 2^63 sort as negative.
impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(value.cast_signed())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Blob(value.to_vec())
    }
}

impl<const N: usize> From<[u8; N]> for Value {
    fn from(value: [u8; N]) -> Self {
        Self::Blob(value.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Blob(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
