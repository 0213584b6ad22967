//! Shows what is stored beside messages: `cargo run -p message --example describe -- FILE...`. Bare line feeds are read as
//! line ends. With `--time`, parses each file a thousand times and prints the mean.
#![forbid(unsafe_code)]

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let (flags, files): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|a| a == "--time");
    for file in files {
        let raw = std::fs::read(&file)?;
        let mut message = Vec::with_capacity(raw.len() + raw.len() / 32);
        for line in raw.split_inclusive(|b| *b == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(text) => {
                    message.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
                    message.extend_from_slice(b"\r\n");
                }
                None => message.extend_from_slice(line),
            }
        }
        let limits = message::Limits::default();
        if !flags.is_empty() {
            let start = std::time::Instant::now();
            let mut octets = 0;
            for _ in 0..1000 {
                octets = message::parse(b"", &message, &limits).encode().len();
            }
            let mean = start.elapsed() / 1000;
            writeln!(
                out,
                "{file}: {} octets, stored {octets}, {mean:?}",
                message.len()
            )?;
            continue;
        }
        let parsed = message::parse(b"", &message, &limits);
        writeln!(out, "file: {file}")?;
        for (name, value) in [
            ("envelope", parsed.envelope.clone()),
            ("bodystructure", parsed.structure.clone()),
            (
                "body",
                message::body_of(&parsed.structure).unwrap_or_default(),
            ),
        ] {
            write!(out, "{name}: ")?;
            out.write_all(&value)?;
            writeln!(out)?;
        }
        writeln!(
            out,
            "size: {}\nsubject: {}\nfrom: {}\npreview: {}\nattachment: {}\n",
            parsed.size,
            parsed.base_subject,
            parsed.from_display,
            parsed.preview,
            parsed.has_attachment
        )?;
    }
    Ok(())
}
