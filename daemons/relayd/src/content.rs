//! The message as it is sent: trace fields and signatures, then the body from memory or from a file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Where the body is.
#[derive(Clone, Debug)]
pub(crate) enum BodySource {
    Inline(Arc<Vec<u8>>),
    /// Read by offset, as the descriptor may be shared. Only the first `len` octets are the body.
    File {
        file: Arc<File>,
        len: u64,
    },
}

/// A message on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    /// Before the body: signatures, then the prefix of the queue.
    pub(crate) head: Vec<u8>,
    pub(crate) body: BodySource,
}

/// Octets read and sent at a time.
pub(crate) const CHUNK: usize = 64 * 1024;

impl BodySource {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Inline(octets) => octets.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// All octets.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) async fn whole(&self) -> std::io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        while (whole.len() as u64) < self.len() {
            whole.append(&mut self.read(whole.len() as u64).await?);
        }
        Ok(whole)
    }

    /// The octets from `offset` on, at most [`CHUNK`]; empty at the end.
    ///
    /// # Errors
    /// If the file is shorter than it should be, or cannot be read.
    pub(crate) async fn read(&self, offset: u64) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Inline(octets) => {
                let start = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(octets.len());
                let end = (start + CHUNK).min(octets.len());
                Ok(octets.get(start..end).unwrap_or_default().to_vec())
            }
            Self::File { file, len } => {
                let file = file.clone();
                let want = usize::try_from(len.saturating_sub(offset))
                    .unwrap_or(CHUNK)
                    .min(CHUNK);
                tokio::task::spawn_blocking(move || {
                    let mut chunk = vec![0; want];
                    file.read_exact_at(&mut chunk, offset).map(|()| chunk)
                })
                .await
                .map_err(std::io::Error::other)?
            }
        }
    }

    /// The same in a blocking thread.
    pub(crate) fn read_blocking(&self, offset: u64) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Inline(octets) => {
                let start = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(octets.len());
                Ok(octets.get(start..).unwrap_or_default().to_vec())
            }
            Self::File { file, len } => {
                let want = usize::try_from(len.saturating_sub(offset))
                    .unwrap_or(CHUNK)
                    .min(CHUNK);
                let mut chunk = vec![0; want];
                file.read_exact_at(&mut chunk, offset).map(|()| chunk)
            }
        }
    }
}

impl BodySource {
    /// All of it, a piece at a time. Blocks.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn each_chunk(&self, mut take: impl FnMut(&[u8])) -> Result<(), String> {
        let mut offset = 0;
        while offset < self.len() {
            let chunk = self
                .read_blocking(offset)
                .map_err(|error| format!("the message cannot be read: {error}"))?;
            if chunk.is_empty() {
                break;
            }
            offset += chunk.len() as u64;
            take(&chunk);
        }
        Ok(())
    }
}

impl Content {
    /// Octets as they are declared in SIZE (RFC 1870 3).
    pub(crate) fn len(&self) -> u64 {
        self.head.len() as u64 + self.body.len()
    }
}

/// What must be known of a message before it is sent. Found in one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    /// There are octets above 127 somewhere.
    pub(crate) eight_bit: bool,
    /// There are such octets in the header: it is an internationalised message (RFC 6532).
    pub(crate) utf8_header: bool,
    /// `TLS-Required: No` (RFC 8689 3).
    pub(crate) tls_optional: bool,
}

/// Octets of the header in which `TLS-Required` is looked for.
const HEADER_MAX: usize = 256 * 1024;

impl Traits {
    /// Looks at prefix and body.
    ///
    /// # Errors
    /// As [`BodySource::read`].
    pub(crate) async fn of(prefix: &[u8], body: &BodySource) -> std::io::Result<Self> {
        let mut found = Self {
            eight_bit: !prefix.is_ascii(),
            utf8_header: !prefix.is_ascii(),
            tls_optional: false,
        };
        let mut fields = Vec::new();
        let mut offset = 0;
        let mut in_header = true;
        // The last octets of the chunk before: an empty line may be cut in two.
        let mut tail: Vec<u8> = b"\n".to_vec();
        loop {
            let chunk = body.read(offset).await?;
            if chunk.is_empty() {
                found.tls_optional = says_optional(&fields);
                return Ok(found);
            }
            offset += chunk.len() as u64;
            if in_header {
                let mut seam = std::mem::take(&mut tail);
                let before = seam.len();
                seam.extend_from_slice(&chunk);
                let end = header_end(&seam).unwrap_or(seam.len());
                let header = seam.get(before.min(end)..end).unwrap_or_default();
                found.utf8_header |= !header.is_ascii();
                let room = HEADER_MAX.saturating_sub(fields.len()).min(header.len());
                fields.extend_from_slice(header.get(..room).unwrap_or_default());
                in_header = end == seam.len();
                tail = seam.split_off(seam.len().saturating_sub(3));
            }
            found.eight_bit |= !chunk.is_ascii();
            if found.eight_bit && !in_header {
                found.tls_optional = says_optional(&fields);
                return Ok(found);
            }
        }
    }
}

/// RFC 8689 3: a field of its own, once, with one value that means something.
fn says_optional(header: &[u8]) -> bool {
    let mut values = header.split(|octet| *octet == b'\n').filter_map(|line| {
        let colon = line.iter().position(|octet| *octet == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        name.trim_ascii_end()
            .eq_ignore_ascii_case(b"TLS-Required")
            .then(|| {
                value
                    .trim_ascii_start()
                    .get(1..)
                    .unwrap_or_default()
                    .trim_ascii()
            })
    });
    let first = values.next();
    first.is_some_and(|value| value.eq_ignore_ascii_case(b"no")) && values.next().is_none()
}

/// Where the empty line starts.
fn header_end(data: &[u8]) -> Option<usize> {
    let mut start = 0;
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        if start > 0 && (line == b"\n" || line == b"\r\n") {
            return Some(start);
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn traits(body: &[u8]) -> (bool, bool) {
        let found = Traits::of(
            b"Received: x\r\n",
            &BodySource::Inline(Arc::new(body.to_vec())),
        )
        .await
        .unwrap();
        (found.eight_bit, found.utf8_header)
    }

    #[tokio::test]
    async fn tls_required_no_is_found() {
        for (head, optional) in [
            ("TLS-Required: No", true),
            ("tls-required :\tno ", true),
            ("TLS-Required: Yes", false),
            ("TLS-Required:", false),
            ("X-TLS-Required: No", false),
            ("Subject: x\r\n\r\nTLS-Required: No", false),
            ("TLS-Required: No\r\nTLS-Required: No", false),
            (" TLS-Required: No", false),
        ] {
            let message = format!("From: a@b\r\n{head}\r\n\r\nx\r\n");
            let body = BodySource::Inline(Arc::new(message.into_bytes()));
            let found = Traits::of(b"", &body).await.unwrap();
            assert_eq!(found.tls_optional, optional, "{head}");
        }
    }

    #[tokio::test]
    async fn eight_bit_text_is_found_where_it_is() {
        assert_eq!(traits(b"Subject: x\r\n\r\nplain\r\n").await, (false, false));
        assert_eq!(
            traits("Subject: x\r\n\r\nä\r\n".as_bytes()).await,
            (true, false)
        );
        assert_eq!(
            traits("Subject: ä\r\n\r\nx\r\n".as_bytes()).await,
            (true, true)
        );
        assert_eq!(traits("\r\nä\r\n".as_bytes()).await, (true, false));
        assert_eq!(traits(b"").await, (false, false));
        let long = [
            &b"Subject: x\r\n"[..],
            &b"X: y\r\n".repeat(CHUNK / 6 - 1),
            b"\r\n",
            &b"a".repeat(CHUNK),
            "ä".as_bytes(),
        ]
        .concat();
        assert_eq!(traits(&long).await, (true, false));
    }
}
