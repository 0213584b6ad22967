//! Cutting a stream into packets.

/// A packet: its letter, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it is.
    pub letter: u8,
    /// The rest.
    pub data: Vec<u8>,
}

/// A packet announces more octets than are allowed, or none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {0} octets")]
pub struct TooLong(pub u32);

/// Takes octets as they come, and gives packets. Keeps at most one packet beyond what was just fed.
#[derive(Debug)]
pub struct Reader {
    octets: Vec<u8>,
    most: u32,
}

impl Reader {
    /// Of packets of at most `most` octets, their letter included.
    pub fn new(most: u32) -> Self {
        Self {
            octets: Vec::new(),
            most,
        }
    }

    /// More octets.
    pub fn feed(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    /// The next packet, if it is there as a whole.
    ///
    /// # Errors
    /// [`TooLong`]; nothing that follows can be read then.
    pub fn packet(&mut self) -> Result<Option<Packet>, TooLong> {
        let Some((length, rest)) = self.octets.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        if length == 0 || length > self.most {
            return Err(TooLong(length));
        }
        let Some(packet) = rest.get(..length as usize) else {
            return Ok(None);
        };
        let Some((letter, data)) = packet.split_first() else {
            return Err(TooLong(length));
        };
        let packet = Packet {
            letter: *letter,
            data: data.to_vec(),
        };
        self.octets.drain(..4 + length as usize);
        Ok(Some(packet))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn packets_come_out_however_the_octets_come_in() {
        let stream = b"\0\0\0\x01c\0\0\0\x03qok\0\0\0\x02";
        for step in 1..stream.len() {
            let mut reader = Reader::new(3);
            let mut found = Vec::new();
            for piece in stream.chunks(step) {
                reader.feed(piece);
                while let Some(packet) = reader.packet().unwrap() {
                    found.push((packet.letter, packet.data));
                }
            }
            assert_eq!(found, [(b'c', Vec::new()), (b'q', b"ok".to_vec())]);
        }
    }

    #[test]
    fn lengths_have_a_limit() {
        let mut reader = Reader::new(3);
        reader.feed(b"\0\0\0\x04");
        assert_eq!(reader.packet(), Err(TooLong(4)));
        let mut reader = Reader::new(3);
        reader.feed(b"\0\0\0\0");
        assert_eq!(reader.packet(), Err(TooLong(0)));
    }
}
