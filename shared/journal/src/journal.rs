//! The journal: opening, appending, reclaiming.

use crate::disk::Disk;
use crate::error::{Error, Fault};
use crate::format::{self, Header, Kind, Position, RECORD_HEADER};
use crate::ledger::{Entry, Ledger};
use crate::scan::{self, Damage};
use crate::segment::{self, Segment, TRAILER};
use crate::shelf::{Reader, Shelf, Volume};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io::IoSlice;
use std::path::{Path, PathBuf};

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Octets of a segment, allocated when it is created.
    pub segment_size: u64,
    /// Octets of a payload at most.
    pub max_record: u32,
    /// Segments that are kept for reuse when they are done.
    pub spares: usize,
    /// The newest segments besides the active one are kept, although they are done, so that after a crash it is known for a
    /// while which messages were done.
    pub keep: usize,
    /// Octets kept aside, so that records which free messages can be written on a full disk.
    pub reserve: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_size: 4 * 1024 * 1024,
            max_record: 8 * 1024 * 1024,
            spares: 1,
            keep: 2,
            reserve: 1024 * 1024,
        }
    }
}

/// A record to be appended. Its payload is the three parts, one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What it is; not [`Kind::End`].
    pub kind: Kind,
    /// The version of the payload.
    pub version: u8,
    /// The message.
    pub id: u64,
    /// The payload in pieces, so that nobody has to join them.
    pub parts: [&'a [u8]; 3],
}

impl Record<'_> {
    /// A record that the message is done.
    pub fn free(id: u64) -> Self {
        Self {
            kind: Kind::Free,
            version: 0,
            id,
            parts: [&[]; 3],
        }
    }

    fn payload_len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    handle: File,
    _lock: File,
    options: Options,
    disk: Disk,
    shelf: Shelf,
    ledger: Ledger,
    active: Option<Segment>,
    next: u64,
    bytes: u64,
    spares: Vec<PathBuf>,
    reserved: bool,
    /// Messages of batches of which nobody knows whether they are on the disk, with their segments: to be freed before
    /// anything else.
    void: Vec<(u64, u64)>,
    damage: Vec<Damage>,
    freed: Vec<u64>,
    headers: Vec<u8>,
}

const RESERVE: &str = "reserve";

impl Journal {
    /// Opens the journal in `directory`, which is created if it is missing, and reads all of it.
    ///
    /// # Errors
    /// [`Fault::Locked`] if another process has it, and what the file system says. Damage is no error: see
    /// [`Journal::damage`].
    pub fn open(directory: &Path, options: Options) -> Result<Self, Error> {
        Self::open_on(Disk::default(), directory, options)
    }

    pub(crate) fn open_on(disk: Disk, directory: &Path, options: Options) -> Result<Self, Error> {
        let what = |error: std::io::Error| {
            Error::new(
                format!("opening the journal {}", directory.display()),
                error,
            )
        };
        std::fs::create_dir_all(directory).map_err(what)?;
        let lock = segment::open(&directory.join("lock")).map_err(what)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Error::new(
                format!("the journal {}", directory.display()),
                Fault::Locked,
            )
        })?;
        let mut journal = Self {
            directory: directory.to_owned(),
            handle: File::open(directory).map_err(what)?,
            _lock: lock,
            options,
            disk,
            shelf: Shelf::default(),
            ledger: Ledger::default(),
            active: None,
            next: 1,
            bytes: 0,
            spares: Vec::new(),
            reserved: false,
            void: Vec::new(),
            damage: Vec::new(),
            freed: Vec::new(),
            headers: Vec::new(),
        };
        for number in journal.look_around().map_err(what)? {
            journal.load(number)?;
        }
        journal.reclaim();
        journal.keep_reserve();
        Ok(journal)
    }

    /// Finds the segments, in order, and the spares.
    fn look_around(&mut self) -> std::io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(number) = segment::number(name) {
                numbers.push(number);
            } else if name.ends_with(".spare") {
                self.spares.push(entry.path());
            } else if name == RESERVE {
                self.reserved = true;
            } else if name == "new" {
                std::fs::remove_file(entry.path())?;
            } else if let Some(number) = name
                .strip_suffix(".damaged")
                .and_then(|stem| u64::from_str_radix(stem, 16).ok())
            {
                // Its number must not be used again.
                self.next = self.next.max(number + 1);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Reads a segment of an earlier run. Nothing is ever appended to it.
    fn load(&mut self, number: u64) -> Result<(), Error> {
        let path = segment::path(&self.directory, number);
        let what = |error| Error::new(format!("reading segment {number}"), error);
        self.next = self.next.max(number + 1);
        let octets = std::fs::read(&path).map_err(what)?;
        self.bytes += octets.len() as u64;
        let Some(scanned) = scan::scan(&octets, number) else {
            let damage = Damage {
                segment: number,
                offset: 0,
                len: octets.len() as u64,
            };
            tracing::error!(
                segment = number,
                "the segment's header is damaged: kept aside"
            );
            self.damage.push(damage);
            self.ledger.add_segment(number, true);
            return Ok(());
        };
        for damage in &scanned.damage {
            tracing::error!(
                segment = number,
                offset = damage.offset,
                octets = damage.len,
                "a damaged record was skipped: the segment will be kept aside"
            );
        }
        self.ledger.add_segment(number, !scanned.damage.is_empty());
        self.damage.extend(&scanned.damage);
        for found in &scanned.records {
            let Ok(offset) = u32::try_from(found.offset) else {
                continue;
            };
            let at = Position {
                segment: number,
                offset,
                len: found.header.len,
            };
            let id = found.header.id;
            match found.header.kind {
                Kind::Put => self.ledger.put(id, at),
                Kind::Note => self.ledger.note(id, at),
                Kind::Free => {
                    self.ledger.free(id, number);
                    self.freed.push(id);
                }
                Kind::End => {}
            }
        }
        let file = segment::open(&path).map_err(what)?;
        if scanned.torn && !scanned.sealed {
            tracing::info!(
                segment = number,
                end = scanned.end,
                "an unfinished batch was cut off"
            );
            // What was not acknowledged must not turn up at a later start.
            self.disk
                .truncate(&file, scanned.end)
                .and_then(|()| self.disk.sync(&file))
                .map_err(what)?;
        }
        self.shelf.insert(
            scanned.number,
            Volume {
                file,
                key: scanned.key,
            },
        );
        Ok(())
    }

    /// What was found damaged when the journal was opened.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// The messages that the segments, when they were opened, said to be done, oldest first. Taken once.
    pub fn take_freed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.freed)
    }

    /// The messages that are not done, in no order.
    pub fn live(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.ledger.entries()
    }

    /// The records of a message that is not done.
    pub fn entry(&self, id: u64) -> Option<&Entry> {
        self.ledger.entry(id)
    }

    /// How many messages are not done.
    pub fn len(&self) -> usize {
        self.ledger.len()
    }

    /// Whether no message is live.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of all segments.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A handle that reads records, for other threads.
    pub fn reader(&self) -> Reader {
        Reader(self.shelf.clone())
    }

    /// Appends records in one go. With `sync`, they and all that were appended before survive power loss after `Ok`; without,
    /// they do so after the next batch with it.
    ///
    /// # Errors
    /// None of the records counts then. [`Fault::Full`]: again when there is room. Anything else: again, and it will be
    /// another segment.
    pub fn append(&mut self, records: &[Record<'_>], sync: bool) -> Result<Vec<Position>, Error> {
        let limit = self.options.max_record as usize;
        if records.iter().any(|record| record.payload_len() > limit) {
            return Err(Error::new("appending", Fault::TooLarge));
        }
        let void: Vec<Record<'_>> = self.void.iter().map(|(id, _)| Record::free(*id)).collect();
        if !void.is_empty() {
            let marks = self.write(&void, true)?;
            for ((_, failed), mark) in self.void.drain(..).zip(marks) {
                // The mark must outlive what it voids.
                self.ledger.outlive(mark.segment, failed);
            }
        }
        self.write(records, sync)
    }

    fn write(&mut self, records: &[Record<'_>], sync: bool) -> Result<Vec<Position>, Error> {
        if records.is_empty() && !sync {
            return Ok(Vec::new());
        }
        let len: u64 = records
            .iter()
            .map(|record| (RECORD_HEADER + record.payload_len()) as u64)
            .sum();
        if !self
            .active
            .as_ref()
            .is_some_and(|segment| segment.has_room(len))
        {
            if records.is_empty() && self.active.is_none() {
                return Ok(Vec::new());
            }
            let freeing = records.iter().all(|record| record.kind != Kind::Put);
            self.rotate(len, freeing)?;
        }
        let Some(segment) = self.active.as_mut() else {
            return Err(Error::new("appending", Fault::Gone));
        };
        let positions = match write_batch(&self.disk, segment, records, &mut self.headers) {
            Ok(positions) => positions,
            Err(error) => {
                let end = segment.end;
                let cut = self.disk.truncate(&segment.file, end);
                let fault = Fault::from(error);
                if cut.is_err() || !matches!(fault, Fault::Full) {
                    self.poison(records);
                }
                return Err(Error::new("appending", fault));
            }
        };
        segment.dirty = true;
        if sync {
            if let Err(error) = self.disk.sync(&segment.file) {
                // The kernel may have dropped the pages and call the file clean now.
                self.poison(records);
                return Err(Error::new("syncing", error));
            }
            segment.dirty = false;
        }
        segment.end += len;
        let number = segment.number;
        for (record, at) in records.iter().zip(&positions) {
            match record.kind {
                Kind::Put => self.ledger.put(record.id, *at),
                Kind::Note => self.ledger.note(record.id, *at),
                Kind::Free => {
                    self.ledger.free(record.id, number);
                }
                Kind::End => {}
            }
        }
        Ok(positions)
    }

    /// Never writes to the active segment again, and remembers to void the messages of the batch that failed.
    fn poison(&mut self, records: &[Record<'_>]) {
        let Some(segment) = self.active.take() else {
            return;
        };
        tracing::error!(
            segment = segment.number,
            "the segment is not written to any more"
        );
        let puts = records.iter().filter(|record| record.kind == Kind::Put);
        self.void
            .extend(puts.map(|record| (record.id, segment.number)));
    }

    /// Goes on in a new segment with room for a batch of `len`.
    fn rotate(&mut self, len: u64, freeing: bool) -> Result<(), Error> {
        self.close_active();
        let needed = format::RECORDS_AT + len + TRAILER;
        if needed > u64::from(u32::MAX) {
            return Err(Error::new("appending", Fault::TooLarge));
        }
        let number = self.next;
        let mut capacity = self.options.segment_size.max(needed);
        let spare = self.spares.pop();
        let mut made = self.create(number, capacity, spare.as_deref());
        let spend = made.as_ref().is_err_and(Error::is_full) && freeing;
        if spend {
            // Freeing messages makes room: that must always be possible.
            self.spend_reserve();
            capacity = needed.max(64 * 1024);
            made = self.create(number, capacity, None);
        }
        let segment = made?;
        self.next += 1;
        self.bytes += capacity;
        let file = segment
            .file
            .try_clone()
            .map_err(|error| Error::new("opening a segment", error))?;
        self.shelf.insert(
            number,
            Volume {
                file,
                key: segment.key,
            },
        );
        self.ledger.add_segment(number, false);
        self.active = Some(segment);
        self.reclaim();
        if !spend {
            self.keep_reserve();
        }
        Ok(())
    }

    fn create(&self, number: u64, capacity: u64, spare: Option<&Path>) -> Result<Segment, Error> {
        let directory = (self.directory.as_path(), &self.handle);
        Segment::create(&self.disk, directory, number, capacity, spare)
    }

    /// Ends the active segment.
    fn close_active(&mut self) {
        let Some(mut segment) = self.active.take() else {
            return;
        };
        segment.seal(&self.disk);
        // Marks that were written without a sync. If it fails, replay meets messages again that were done.
        if segment.dirty
            && let Err(error) = self.disk.sync(&segment.file)
        {
            tracing::error!(segment = segment.number, %error, "syncing");
        }
    }

    /// Makes everything durable and ends the active segment, so that the next start reads less.
    pub fn close(mut self) {
        self.close_active();
        self.reclaim();
    }

    /// Removes the segments that nothing needs. Called by every change of the segment; call it in quiet times too.
    /// Returns how many went.
    pub fn reclaim(&mut self) -> usize {
        let active = self.active.as_ref().map(|segment| segment.number);
        let numbers = self.ledger.removable(active, self.options.keep);
        let mut gone = Vec::new();
        for number in numbers {
            let path = segment::path(&self.directory, number);
            let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
            let done = if self.ledger.is_damaged(number) {
                std::fs::rename(&path, path.with_extension("damaged"))
            } else if self.spares.len() < self.options.spares && size >= self.options.segment_size {
                let spare = path.with_extension("spare");
                std::fs::rename(&path, &spare).map(|()| self.spares.push(spare))
            } else {
                std::fs::remove_file(&path)
            };
            match done {
                Ok(()) => {
                    self.bytes = self.bytes.saturating_sub(size);
                    gone.push(number);
                }
                Err(error) => tracing::error!(segment = number, %error, "removing"),
            }
        }
        if gone.is_empty() {
            return 0;
        }
        if let Err(error) = self.disk.sync_directory(&self.handle) {
            // They may come back at the next start; what frees their records must stay.
            tracing::error!(%error, "syncing the journal's directory");
            return 0;
        }
        for number in &gone {
            self.shelf.remove(*number);
            self.ledger.remove_segment(*number);
        }
        gone.len()
    }

    /// Whether [`Journal::reclaim`] would also find work if the active segment were closed: everything is done.
    pub fn is_idle(&self) -> bool {
        self.ledger.len() == 0
    }

    fn spend_reserve(&mut self) {
        if std::mem::take(&mut self.reserved) {
            tracing::warn!("the disk is full: using the journal's reserve");
            let _ = std::fs::remove_file(self.directory.join(RESERVE));
        }
        for spare in self.spares.drain(..) {
            let _ = std::fs::remove_file(spare);
        }
    }

    fn keep_reserve(&mut self) {
        if self.reserved || self.options.reserve == 0 {
            return;
        }
        let path = self.directory.join(RESERVE);
        let made =
            segment::open(&path).and_then(|file| self.disk.allocate(&file, self.options.reserve));
        match made {
            Ok(()) => self.reserved = true,
            Err(error) => {
                tracing::warn!(%error, "no room for the journal's reserve");
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Writes the records and a mark of the end behind them.
fn write_batch(
    disk: &Disk,
    segment: &Segment,
    records: &[Record<'_>],
    headers: &mut Vec<u8>,
) -> std::io::Result<Vec<Position>> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    headers.clear();
    let mut positions = Vec::with_capacity(records.len());
    let mut offset = segment.end;
    for record in records {
        // Both fit: the caller has checked the batch against the segment.
        let len = u32::try_from(record.payload_len()).unwrap_or(u32::MAX);
        positions.push(Position {
            segment: segment.number,
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            len,
        });
        let header = Header {
            kind: record.kind,
            version: record.version,
            id: record.id,
            len,
        };
        format::write_header(headers, &segment.key, offset, header, record.parts);
        offset += RECORD_HEADER as u64 + u64::from(len);
    }
    let end = [0; RECORD_HEADER];
    let mut slices = Vec::with_capacity(records.len() * 4 + 1);
    for (header, record) in headers.chunks_exact(RECORD_HEADER).zip(records) {
        slices.push(IoSlice::new(header));
        let parts = record.parts.iter().filter(|part| !part.is_empty());
        slices.extend(parts.map(|part| IoSlice::new(part)));
    }
    slices.push(IoSlice::new(&end));
    disk.write_all(&segment.file, &mut slices, segment.end)?;
    Ok(positions)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
