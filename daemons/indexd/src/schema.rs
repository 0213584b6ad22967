//! How the index is laid out.
//!
//! One index holds all accounts. Each term begins with its account, so that a search reads the postings of its own account
//! only, and can see no other's.

use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, Schema, TextFieldIndexing, TextOptions,
};
use types::{AccountId, ContentId};

/// What words are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The values of all header fields.
    Head,
    /// The text of the body.
    Body,
    /// Subject.
    Subject,
    /// From.
    From,
    /// To.
    To,
    /// Cc.
    Cc,
    /// Bcc.
    Bcc,
    /// Stems of the body.
    Stems,
    /// Stems of the subject.
    SubjectStems,
}

impl Place {
    /// How many.
    pub(crate) const COUNT: usize = 9;
    /// All, in the order of [`Places`].
    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::Head,
        Self::Body,
        Self::Subject,
        Self::From,
        Self::To,
        Self::Cc,
        Self::Bcc,
        Self::Stems,
        Self::SubjectStems,
    ];

    /// Its name in an index.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Body => "body",
            Self::Subject => "subject",
            Self::From => "from",
            Self::To => "to",
            Self::Cc => "cc",
            Self::Bcc => "bcc",
            Self::Stems => "stems",
            Self::SubjectStems => "subject_stems",
        }
    }
}

/// The fields of the index.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub schema: Schema,
    pub account: Field,
    pub content: Field,
    pub key: Field,
    head: Field,
    body: Field,
    subject: Field,
    from: Field,
    to: Field,
    cc: Field,
    bcc: Field,
    stems: Field,
    subject_stems: Field,
}

impl Places {
    pub(crate) fn new() -> Self {
        let mut builder = Schema::builder();
        let account = builder.add_u64_field("account", INDEXED | FAST);
        let content = builder.add_u64_field("content", FAST);
        let key = builder.add_bytes_field("key", INDEXED);
        let mut text = |place: Place| {
            // Stems are never looked for as phrases; without positions they take half the room.
            let option = if matches!(place, Place::Stems | Place::SubjectStems) {
                IndexRecordOption::WithFreqs
            } else {
                IndexRecordOption::WithFreqsAndPositions
            };
            let indexing = TextFieldIndexing::default()
                .set_tokenizer("raw")
                .set_index_option(option);
            builder.add_text_field(
                place.name(),
                TextOptions::default().set_indexing_options(indexing),
            )
        };
        let [head, body, subject, from, to, cc, bcc, stems, subject_stems] =
            Place::ALL.map(&mut text);
        Self {
            schema: builder.build(),
            account,
            content,
            key,
            head,
            body,
            subject,
            from,
            to,
            cc,
            bcc,
            stems,
            subject_stems,
        }
    }

    pub(crate) fn of(&self, place: Place) -> Field {
        match place {
            Place::Head => self.head,
            Place::Body => self.body,
            Place::Subject => self.subject,
            Place::From => self.from,
            Place::To => self.to,
            Place::Cc => self.cc,
            Place::Bcc => self.bcc,
            Place::Stems => self.stems,
            Place::SubjectStems => self.subject_stems,
        }
    }
}

/// What all terms of an account begin with. No word has the separator, and no number contains it.
pub(crate) fn prefix(account: AccountId) -> String {
    format!("{:x}\u{1}", account.0)
}

/// The one term that a content has alone.
pub(crate) fn key(account: AccountId, content: ContentId) -> [u8; 16] {
    let mut key = [0; 16];
    let (left, right) = key.split_at_mut(8);
    left.copy_from_slice(&account.0.to_be_bytes());
    right.copy_from_slice(&content.0.to_be_bytes());
    key
}
