// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Frames on a byte stream that may begin anywhere.
//!
//! Invariant: a zero byte ends a frame and occurs nowhere else, so a reader that was dropped into
//! the middle of a stream, or whose peer died in mid-frame, is in step again after the next zero.
//!
//! A virtio-serial port outlives the programs at both its ends: what a killed host program had
//! half written is still in front of the next one's first frame. Length prefixes alone cannot be
//! trusted there. So a frame is its length (u32, little-endian) and its content, stuffed with
//! COBS (Cheshire and Baker, "Consistent Overhead Byte Stuffing", 1999: one byte in 254), and one
//! zero. The length inside tells a whole frame from the remains of one.

/// The largest content of a frame in bytes; a longer one is dropped by the decoder.
pub const MAX_CONTENT: usize = 1 << 20;

const LENGTH_BYTES: usize = 4;
/// Length, content, COBS' one byte in 254 and its first one.
const MAX_STUFFED: usize = LENGTH_BYTES + MAX_CONTENT + (LENGTH_BYTES + MAX_CONTENT) / 254 + 2;

/// Returns `content` as one frame, with a zero on both sides: the leading one ends whatever an
/// earlier writer left unfinished.
pub fn encode(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut frame = Vec::with_capacity(content.len() + content.len() / 254 + 8);
    frame.push(0);
    stuff(length.iter().chain(content), &mut frame);
    frame.push(0);
    frame
}

/// COBS: each run of up to 254 non-zero bytes is preceded by its code, its length plus one.
fn stuff<'a>(bytes: impl Iterator<Item = &'a u8>, out: &mut Vec<u8>) {
    let mut run = Vec::with_capacity(254);
    let mut code = 1_u8;
    let mut after_full_run = false;
    for &byte in bytes {
        if byte != 0 {
            run.push(byte);
            code += 1;
        }
        after_full_run = code == u8::MAX;
        if byte == 0 || after_full_run {
            out.push(code);
            out.append(&mut run);
            code = 1;
        }
    }
    // A full run at the very end stands for itself; everything else ends in an implied zero.
    if !after_full_run {
        out.push(code);
        out.append(&mut run);
    }
}

/// Undoes [`stuff`]; `None` if `stuffed` is no COBS text.
fn unstuff(stuffed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(stuffed.len());
    let mut rest = stuffed;
    while let Some((&code, after)) = rest.split_first() {
        let run = usize::from(code).checked_sub(1)?;
        bytes.extend_from_slice(after.get(..run)?);
        rest = after.get(run..)?;
        if code != 255 && !rest.is_empty() {
            bytes.push(0);
        }
    }
    Some(bytes)
}

/// Finds the frames in a stream that arrives in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    stuffed: Vec<u8>,
    /// More than a frame's worth of bytes came without a zero: skip to the next one.
    overrun: bool,
}

impl Decoder {
    /// Takes the next piece of the stream and returns the contents of the frames it completes.
    /// Remains of frames are dropped without a word: they are expected (see the module's text).
    pub fn push(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        let mut contents = Vec::new();
        let mut parts = piece.split(|&byte| byte == 0);
        if let Some(continuation) = parts.next() {
            self.append(continuation);
        }
        for part in parts {
            contents.extend(self.finish());
            self.append(part);
        }
        contents
    }

    /// Forgets a half-received frame: the peer that was sending it is gone.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn append(&mut self, part: &[u8]) {
        if self.overrun || self.stuffed.len() + part.len() > MAX_STUFFED {
            self.overrun = true;
            self.stuffed = Vec::new();
        } else {
            self.stuffed.extend_from_slice(part);
        }
    }

    fn finish(&mut self) -> Option<Vec<u8>> {
        let stuffed = std::mem::take(&mut self.stuffed);
        if std::mem::take(&mut self.overrun) {
            return None;
        }
        let mut bytes = unstuff(&stuffed)?;
        let length = u32::from_le_bytes(*bytes.first_chunk()?);
        let content = bytes.split_off(LENGTH_BYTES);
        (content.len() == usize::try_from(length).ok()?).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contents around every boundary of the stuffing.
    fn samples() -> Vec<Vec<u8>> {
        let mut samples = vec![vec![], vec![0], vec![0, 0, 0], b"hello".to_vec()];
        for length in [249, 250, 251, 253, 254, 255, 504, 508, 509, 70_000] {
            samples.push(vec![0; length]);
            samples.push(vec![0xff; length]);
            samples.push((0..=u8::MAX).cycle().take(length).collect());
            samples.push((1..=u8::MAX).cycle().take(length).collect());
        }
        samples
    }

    #[test]
    fn a_frame_comes_back_as_it_went() {
        for content in samples() {
            let frame = encode(&content);
            assert_eq!(frame.iter().filter(|&&b| b == 0).count(), 2, "zeros only as ends");
            assert_eq!(Decoder::default().push(&frame), [content]);
        }
    }

    #[test]
    fn frames_may_be_cut_anywhere() {
        let stream: Vec<u8> = samples().iter().take(20).flat_map(|c| encode(c)).collect();
        for step in [1, 2, 3, 7, 100, 1000] {
            let mut decoder = Decoder::default();
            let found: Vec<_> = stream.chunks(step).flat_map(|p| decoder.push(p)).collect();
            assert_eq!(found, samples()[..20], "in pieces of {step}");
        }
    }

    #[test]
    fn the_remains_of_a_frame_do_not_hide_the_next() {
        let earlier = encode(&[7; 600]);
        let next = encode(b"next");
        for cut in 0..earlier.len() - 1 {
            let stream = [&earlier[..cut], &next].concat();
            assert_eq!(Decoder::default().push(&stream), [b"next"], "cut at {cut}");
        }
        for cut in 2..earlier.len() {
            let stream = [&earlier[cut..], &next].concat();
            let found = Decoder::default().push(&stream);
            assert_eq!(found.last().map(Vec::as_slice), Some(&b"next"[..]), "from {cut}");
        }
    }

    #[test]
    fn an_endless_frame_costs_bounded_memory_and_is_skipped() {
        let mut decoder = Decoder::default();
        for _ in 0..40 {
            assert!(decoder.push(&[1; 65_536]).is_empty());
            assert!(decoder.stuffed.len() <= MAX_STUFFED);
        }
        assert_eq!(decoder.push(&encode(b"after")), [b"after"]);
    }

    #[test]
    fn the_largest_content_fits() {
        let content = vec![0xaa; MAX_CONTENT];
        assert_eq!(Decoder::default().push(&encode(&content)), [content]);
    }
}
