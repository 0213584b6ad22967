//! What can go wrong with the store itself.

/// A store that does not work. What a caller asked wrongly is told by other types.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error("database: {0}")]
    Sql(#[from] sql::Error),
    /// The storage of bodies.
    #[error(transparent)]
    Blob(#[from] blob::BlobError),
    /// What is stored makes no sense.
    #[error("damaged: {0}")]
    Damaged(String),
}

impl Error {
    /// Whether what is stored cannot be read, and will not be later.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Sql(error) => error.kind() == sql::Kind::Corrupt,
            Self::Blob(_) => false,
            Self::Damaged(_) => true,
        }
    }

    /// Whether the same may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Sql(error) => error.is_temporary(),
            Self::Blob(error) => matches!(
                error,
                blob::BlobError::Full(_) | blob::BlobError::Storage(_)
            ),
            Self::Damaged(_) => false,
        }
    }
}
