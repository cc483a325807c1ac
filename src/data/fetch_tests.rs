//! Downloads from a server that misbehaves on purpose.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    sync::{Arc, Mutex},
};

use super::*;
use crate::progress::Silent;

/// What the server does with one request.
#[derive(Clone, Copy)]
enum Act {
    /// Serves it, ranges too.
    Serve,
    /// Serves it, but hangs up after so many bytes of the body.
    Cut(usize),
    /// Ignores that only a range was asked for, and hangs up after so many bytes.
    Whole(usize),
    /// Announces so many bytes more than there are, and hangs up.
    Longer(usize),
    /// Announces and sends so many bytes fewer.
    Shorter(usize),
    /// A page instead, with its right type or none.
    Page(bool),
    /// This status.
    Status(u16),
    /// Answers with a range that was not asked for.
    OtherRange,
    /// Other bytes of the same length.
    Garbage,
    /// Neither length nor end but the end of the connection.
    NoLength,
}

/// The file, and what a server that does `acts` in turn was asked for.
fn content() -> Vec<u8> {
    (0..200_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 8).to_le_bytes()).collect()
}

fn serve(acts: &[Act]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/set.bin", listener.local_addr().unwrap());
    let (acts, asked) = (acts.to_vec(), Arc::new(Mutex::new(Vec::new())));
    let heard = Arc::clone(&asked);
    thread::spawn(move || {
        for act in acts {
            let (mut stream, _) = listener.accept().unwrap();
            let mut range = String::new();
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let line = line.unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("range: bytes=") {
                    range = value.trim_end_matches('-').to_owned();
                }
                if line.is_empty() {
                    break;
                }
            }
            heard.lock().unwrap().push(range.clone());
            // Clients may have gone already.
            let _ = stream.write_all(&answer(act, range.parse().unwrap_or(0)));
        }
    });
    (url, asked)
}

fn answer(act: Act, from: usize) -> Vec<u8> {
    let all = content();
    let rest = &all[from.min(all.len())..];
    let head = |status: &str, length: usize, more: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n")
            .into_bytes()
    };
    let ranged = |length: usize| {
        let range = format!("Content-Range: bytes {from}-{}/{}\r\n", all.len() - 1, all.len());
        if from > 0 {
            head("206 Partial Content", length, &range)
        } else {
            head("200 OK", length, "")
        }
    };
    let page = b"<!DOCTYPE html><html><body>Please sign in</body></html>";
    match act {
        Act::Serve => [ranged(rest.len()), rest.to_vec()].concat(),
        Act::Cut(count) => [ranged(rest.len()), rest[..count].to_vec()].concat(),
        Act::Whole(count) => [head("200 OK", all.len(), ""), all[..count].to_vec()].concat(),
        Act::Longer(more) => [ranged(rest.len() + more), rest.to_vec()].concat(),
        Act::Shorter(fewer) => {
            let rest = &rest[..rest.len() - fewer];
            [ranged(rest.len()), rest.to_vec()].concat()
        }
        Act::Page(typed) => {
            let kind = if typed { "Content-Type: text/html; charset=utf-8\r\n" } else { "" };
            [head("200 OK", page.len(), kind), page.to_vec()].concat()
        }
        Act::Status(code) => [head(&format!("{code} Sorry"), 2, ""), b"no".to_vec()].concat(),
        Act::OtherRange => {
            let range = format!("Content-Range: bytes 7-{}/{}\r\n", all.len() - 1, all.len());
            [head("206 Partial Content", all.len() - 7, &range), all[7..].to_vec()].concat()
        }
        Act::Garbage => [ranged(rest.len()), vec![7; rest.len()]].concat(),
        Act::NoLength => [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), all].concat(),
    }
}

/// What came of it, the names then in the folder, and the ranges asked for.
fn outcome(acts: &[Act]) -> (Result<(PathBuf, bool)>, Vec<String>, Vec<String>) {
    let (url, asked) = serve(acts);
    let folder = tempfile::tempdir().unwrap();
    let sum: &'static str = format!("{:x}", md5::compute(content())).leak();
    let remote = Remote { file: "set.bin", url: "", md5: Some(sum) };
    let patience =
        Patience { attempts: 3, pause: Duration::from_millis(1), silence: Duration::from_secs(5) };
    let result = fetch(&remote, &url, folder.path(), patience, &Silent);
    if let Ok((path, _)) = &result {
        assert!(fs::read(path).unwrap() == content());
        let again = fetch(&remote, &url, folder.path(), patience, &Silent).unwrap();
        assert!(again.1, "what is there is not fetched again");
    }
    let names = fs::read_dir(folder.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let asked = asked.lock().unwrap().clone();
    (result, names, asked)
}

#[test]
fn whole_files_arrive_through_all_mishaps() {
    let cases: [(&[Act], &[&str]); 9] = [
        (&[Act::Serve], &[""]),
        (&[Act::NoLength], &[""]),
        // Cut twice: goes on where it was.
        (&[Act::Cut(300_000), Act::Cut(200_000), Act::Serve], &["", "300000", "500000"]),
        // Cut, then a server that knows no ranges: begins anew.
        (&[Act::Cut(300_000), Act::Whole(800_000)], &["", "300000"]),
        (&[Act::Status(503), Act::Status(429), Act::Serve], &["", "", ""]),
        // A length that is too long: all bytes are there, which the server says when asked on.
        (&[Act::Longer(5000), Act::Status(416), Act::Serve], &["", "800000", ""]),
        // A length that is too short: the checksum tells.
        (&[Act::Shorter(5000), Act::Serve], &["", ""]),
        (&[Act::Cut(1000), Act::OtherRange, Act::Serve], &["", "1000", ""]),
        // What was resumed does not fit: once more from the start.
        (&[Act::Cut(1000), Act::Garbage, Act::Serve], &["", "1000", ""]),
    ];
    for (number, (acts, ranges)) in cases.into_iter().enumerate() {
        let (result, names, asked) = outcome(acts);
        assert!(result.is_ok(), "case {number}: {:?}", result.err());
        assert_eq!(
            (names.as_slice(), asked),
            (&["set.bin".to_owned()][..], ranges.iter().map(|r| (*r).to_owned()).collect()),
            "case {number}"
        );
    }
}

#[test]
fn what_cannot_be_had_leaves_nothing_under_its_name() {
    let cases: [(&[Act], &str, bool); 6] = [
        (&[Act::Page(true)], "HTML page instead of set.bin", false),
        (&[Act::Page(false)], "HTML page instead of set.bin", false),
        (&[Act::Status(404)], "404", false),
        (&[Act::Garbage, Act::Garbage], "thrown away", false),
        (&[Act::Status(500); 3], "gave up after 3 attempts", false),
        // What came before is kept for the next call.
        (&[Act::Cut(9), Act::Status(500), Act::Status(500)], "after 9 bytes", true),
    ];
    for (number, (acts, part, kept)) in cases.into_iter().enumerate() {
        let (result, names, _) = outcome(acts);
        let error = result.unwrap_err();
        assert!(error.to_string().contains(part), "case {number}: {error}");
        assert_eq!(error.exit_code(), 2);
        let expected: &[&str] = if kept { &["set.bin.part"] } else { &[] };
        assert_eq!(names, expected, "case {number}");
    }
}

#[test]
fn interrupted_downloads_go_on_later() {
    struct Stopping;
    impl Progress for Stopping {
        fn event(&self, _: crate::progress::Event) {}
        fn stopping(&self) -> bool {
            true
        }
    }
    let (url, asked) = serve(&[Act::Cut(5000), Act::Serve, Act::Serve]);
    let folder = tempfile::tempdir().unwrap();
    let remote = Remote { file: "set.bin", url: "", md5: None };
    fs::write(folder.path().join("set.bin.part"), &content()[..700]).unwrap();
    let patience = Patience { attempts: 1, pause: Duration::ZERO, silence: Duration::from_secs(5) };
    let stopped = fetch(&remote, &url, folder.path(), patience, &Stopping);
    assert_eq!(stopped.unwrap_err().exit_code(), 130);
    assert!(!folder.path().join("set.bin").exists());
    let (path, _) = fetch(&remote, &url, folder.path(), patience, &Silent).unwrap();
    assert!(fs::read(path).unwrap() == content());
    assert_eq!(asked.lock().unwrap().as_slice(), ["700", "700"]);
}
