//! COMPRESS=DEFLATE (RFC 4978): both directions as raw deflate streams.

use super::{Done, End, Refused, Session};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use imap::put::{self, Condition};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Octets read from the client at once.
const READ: usize = 2048;
/// Octets that are unpacked before somebody looks at them, so that a small packet cannot fill the memory.
const UNPACK: usize = 64 * 1024;

/// The compression of a connection. The compressor lives as long as a response: a stream may go on with another one after a
/// flush, and while the client idles it costs nothing. What the client packed refers to what it sent before, so its window
/// stays.
pub struct Deflate {
    compress: Option<Box<Compress>>,
    decompress: Box<Decompress>,
    packed: Vec<u8>,
    /// There may be more in `decompress` than was unpacked.
    more: bool,
}

impl Default for Deflate {
    fn default() -> Self {
        Self {
            compress: None,
            decompress: Box::new(Decompress::new(false)),
            packed: Vec::new(),
            more: false,
        }
    }
}

impl std::fmt::Debug for Deflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deflate").finish_non_exhaustive()
    }
}

impl Deflate {
    /// Whether octets are held back to be packed together with the next ones.
    pub fn holds(&self) -> bool {
        self.compress.is_some()
    }

    /// Packs octets; `last` when nothing follows soon, so that the client gets all of them.
    pub fn pack(&mut self, mut octets: &[u8], last: bool) -> Vec<u8> {
        let compress = self
            .compress
            .get_or_insert_with(|| Box::new(Compress::new(Compression::fast(), false)));
        let mut packed = Vec::with_capacity(octets.len() / 3 + 64);
        // A full flush refers to nothing before it, and leaves no open bits behind it.
        let flush = match last {
            true => FlushCompress::Full,
            false => FlushCompress::None,
        };
        loop {
            packed.reserve(1024);
            let before = compress.total_in();
            let status = compress.compress_vec(octets, &mut packed, flush);
            let taken = usize::try_from(compress.total_in() - before).unwrap_or(usize::MAX);
            octets = octets.get(taken..).unwrap_or_default();
            // Room was left: there is nothing more to come out.
            let done = octets.is_empty() && packed.len() < packed.capacity();
            if done || !matches!(status, Ok(Status::Ok)) {
                break;
            }
        }
        if last {
            self.compress = None;
        }
        packed
    }

    /// Unpacks some of what came; `false` if more must be read first.
    pub fn unpack(&mut self, out: &mut Vec<u8>) -> Result<bool, End> {
        const DAMAGED: End = End::Gone("the compressed stream is damaged");
        if self.packed.is_empty() && !self.more {
            return Ok(false);
        }
        let room = out.len() + UNPACK;
        out.reserve(READ);
        let (before, had) = (self.decompress.total_in(), out.len());
        loop {
            let at = usize::try_from(self.decompress.total_in() - before).unwrap_or(usize::MAX);
            let rest = self.packed.get(at..).unwrap_or_default();
            let status = self
                .decompress
                .decompress_vec(rest, out, FlushDecompress::None)
                .map_err(|_| DAMAGED)?;
            // RFC 4978 3: the stream has no end
            if matches!(status, Status::StreamEnd) {
                return Err(End::Gone("the client ended its compression"));
            }
            self.more = out.len() == out.capacity();
            if !self.more || out.len() >= room {
                break;
            }
            out.reserve(READ);
        }
        let taken = usize::try_from(self.decompress.total_in() - before).unwrap_or(usize::MAX);
        self.packed.drain(..taken.min(self.packed.len()));
        if self.packed.is_empty() {
            self.packed = Vec::new();
        }
        Ok(out.len() > had)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// COMPRESS DEFLATE.
    pub(crate) async fn compress(&mut self, tag: &str) -> Done {
        if self.deflate.is_some() {
            // RFC 4978 3
            return Err(Refused::No(
                "COMPRESSIONACTIVE",
                "DEFLATE is active already".to_owned(),
            ));
        }
        put::status(&mut self.out, tag, Condition::Ok, "", "DEFLATE active");
        self.flush().await?;
        // What came behind the command's line end is packed already.
        let packed = self.input.split_off(self.used.min(self.input.len()));
        self.input = Vec::new();
        self.used = 0;
        self.deflate = Some(Box::new(Deflate {
            packed,
            ..Deflate::default()
        }));
        Err(Refused::Answered)
    }

    /// The output buffer as it goes over the wire; the buffer is empty then.
    pub(super) fn packed(&mut self, last: bool) -> Vec<u8> {
        let out = std::mem::take(&mut self.out);
        match &mut self.deflate {
            Some(deflate) => deflate.pack(&out, last),
            None => out,
        }
    }
}

/// Reads into the input buffer, unpacked. As [`tokio::io::AsyncReadExt::read_buf`], safe to drop halfway.
pub(super) async fn receive<W: AsyncRead + Unpin>(
    wire: &mut W,
    deflate: Option<&mut Deflate>,
    input: &mut Vec<u8>,
) -> Result<usize, End> {
    const LOST: End = End::Gone("the connection was lost");
    let Some(deflate) = deflate else {
        return wire.read_buf(input).await.map_err(|_| LOST);
    };
    loop {
        let had = input.len();
        if deflate.unpack(input)? {
            return Ok(input.len() - had);
        }
        deflate.packed.reserve(READ);
        let read = wire.read_buf(&mut deflate.packed).await;
        if read.map_err(|_| LOST)? == 0 {
            return Ok(0);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state: u32 = 1;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(next).collect()
    }

    #[test]
    fn a_stream_goes_on_over_compressors() {
        let mut ours = Deflate::default();
        let mut theirs = Deflate::default();
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        let pieces = [
            b"* OK ready\r\n".to_vec(),
            vec![b'x'; 500_000],
            noise(200_000),
            b"a1 OK done\r\n".to_vec(),
        ];
        for (number, piece) in pieces.iter().enumerate() {
            let last = number != 1;
            let packed = ours.pack(piece, last);
            assert_eq!(ours.compress.is_none(), last);
            sent.extend_from_slice(piece);
            // It comes in any pieces.
            for some in packed.chunks(1000) {
                theirs.packed.extend_from_slice(some);
                while theirs.unpack(&mut got).unwrap() {}
            }
            if last {
                assert_eq!(got.len(), sent.len(), "after piece {number}");
            }
        }
        assert!(got == sent);
    }

    #[test]
    fn a_bomb_is_unpacked_in_pieces() {
        let mut theirs = Deflate::default();
        let packed = theirs.pack(&vec![0; 20_000_000], true);
        assert!(packed.len() < 200_000);
        let mut ours = Deflate {
            packed,
            ..Deflate::default()
        };
        let mut total = 0;
        let mut out = Vec::new();
        while ours.unpack(&mut out).unwrap() {
            assert!(out.len() <= UNPACK + READ, "{}", out.len());
            total += out.len();
            out.clear();
        }
        assert_eq!(total, 20_000_000);
    }

    #[test]
    fn what_is_no_deflate_ends_the_session() {
        let mut ours = Deflate {
            packed: b"\xff\xff\xff\xff plain text".to_vec(),
            ..Deflate::default()
        };
        assert!(ours.unpack(&mut Vec::new()).is_err());
    }
}
