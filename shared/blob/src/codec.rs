//! The stored form of a body: an octet that names the codec, then the octets.

/// As it is.
pub(crate) const RAW: u8 = 0;
/// One zstd frame (RFC 8878).
pub(crate) const ZSTD: u8 = 1;

/// Bodies shorter than this are not worth compressing.
const WORTHWHILE: usize = 128;

/// A stored form that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Written by a later version, or not by this crate.
    #[error("unknown codec {0}")]
    Unknown(u8),
    /// Not what was written.
    #[error("the stored form is damaged")]
    Damaged,
    /// It would become longer than the caller takes.
    #[error("the content is longer than {0} octets")]
    TooLong(usize),
}

/// The stored form: compressed if that makes it smaller. `level` is zstd's, 0 for no compression.
pub fn encode(octets: &[u8], level: i32) -> Vec<u8> {
    if level > 0
        && octets.len() >= WORTHWHILE
        && let Ok(mut out) = compress(octets, level)
        && out.len() <= octets.len()
    {
        out.insert(0, ZSTD);
        return out;
    }
    let mut out = Vec::with_capacity(octets.len() + 1);
    out.push(RAW);
    out.extend_from_slice(octets);
    out
}

fn compress(octets: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    thread_local! {
        // A context is about a megabyte: made once a thread, not once a message.
        static CONTEXT: std::cell::RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> =
            const { std::cell::RefCell::new(None) };
    }
    CONTEXT.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(made_for, _)| *made_for != level) {
            *slot = Some((level, zstd::bulk::Compressor::new(level)?));
        }
        match slot {
            Some((_, compressor)) => compressor.compress(octets),
            None => Err(std::io::ErrorKind::Other.into()),
        }
    })
}

/// The octets that [`encode`] was given. `max` is the most that the caller expects: a damaged or hostile record cannot
/// make more of itself.
///
/// # Errors
/// [`CodecError`]
pub fn decode(stored: &[u8], max: usize) -> Result<Vec<u8>, CodecError> {
    let (codec, rest) = stored.split_first().ok_or(CodecError::Damaged)?;
    match *codec {
        RAW if rest.len() <= max => Ok(rest.to_vec()),
        RAW => Err(CodecError::TooLong(max)),
        ZSTD => {
            let length = zstd::zstd_safe::get_frame_content_size(rest);
            match length {
                Ok(Some(length)) if length > max as u64 => return Err(CodecError::TooLong(max)),
                Ok(Some(length)) => {
                    let capacity = usize::try_from(length).map_err(|_| CodecError::Damaged)?;
                    return decompress(rest, capacity).map_err(|_| CodecError::Damaged);
                }
                _ => {}
            }
            // Streams do not tell their length: up to the limit.
            use std::io::Read as _;
            let mut out = Vec::new();
            zstd::stream::read::Decoder::new(rest)
                .and_then(|decoder| decoder.take(max as u64 + 1).read_to_end(&mut out))
                .map_err(|_| CodecError::Damaged)?;
            if out.len() > max {
                Err(CodecError::TooLong(max))
            } else {
                Ok(out)
            }
        }
        other => Err(CodecError::Unknown(other)),
    }
}

fn decompress(frame: &[u8], capacity: usize) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static CONTEXT: std::cell::RefCell<Option<zstd::bulk::Decompressor<'static>>> =
            const { std::cell::RefCell::new(None) };
    }
    CONTEXT.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(zstd::bulk::Decompressor::new()?);
        }
        match slot {
            Some(decompressor) => decompressor.decompress(frame, capacity),
            None => Err(std::io::ErrorKind::Other.into()),
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_compresses_is_compressed_and_the_rest_is_raw() {
        let text = b"the same words again and again. ".repeat(100);
        let stored = encode(&text, 3);
        assert_eq!(stored[0], ZSTD);
        assert!(stored.len() < text.len() / 10);
        assert_eq!(decode(&stored, text.len()).unwrap(), text);
        assert_eq!(
            decode(&stored, text.len() - 1),
            Err(CodecError::TooLong(text.len() - 1))
        );
        assert_eq!(encode(&text, 0)[0], RAW);
        let noise: Vec<u8> = blake3::Hasher::new().finalize_xof().fill_to(1000);
        assert_eq!(encode(&noise, 3)[0], RAW);
        assert_eq!(encode(b"", 3), [RAW]);
        assert_eq!(decode(&[RAW], 0).unwrap(), b"");
    }

    trait FillTo {
        fn fill_to(self, len: usize) -> Vec<u8>;
    }
    impl FillTo for blake3::OutputReader {
        fn fill_to(mut self, len: usize) -> Vec<u8> {
            let mut out = vec![0; len];
            self.fill(&mut out);
            out
        }
    }

    #[test]
    fn damage_is_seen() {
        assert_eq!(decode(b"", 10), Err(CodecError::Damaged));
        assert_eq!(decode(&[9, 1], 10), Err(CodecError::Unknown(9)));
        let stored = encode(&b"abc".repeat(1000), 3);
        assert!(decode(&stored[..stored.len() - 3], 10_000).is_err());
    }

    proptest! {
        #[test]
        fn every_body_comes_back(octets in proptest::collection::vec(any::<u8>(), 0..2000), times in 1_usize..20, level in 0..6) {
            let body = octets.repeat(times);
            prop_assert_eq!(decode(&encode(&body, level), body.len()).unwrap(), body);
        }

        #[test]
        fn any_record_is_survived(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&octets, 100_000);
            let _ = decode(&[&[ZSTD, 0x28, 0xb5, 0x2f, 0xfd][..], &octets].concat(), 100_000);
        }
    }
}
