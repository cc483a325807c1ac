//! A headless Chromium, driven over the DevTools protocol through a pair of named pipes.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// The browser's name.
///
/// # Panics
/// Without one: a test that needs it must not look green.
pub(crate) fn name() -> &'static str {
    let runs = |name: &&str| {
        let mut command = Command::new(name);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    BROWSERS.into_iter().find(runs).expect("no Chromium here: apt-get install chromium")
}

/// One page in its own browser.
pub(crate) struct Tab {
    browser: Child,
    to: File,
    from: Receiver<Value>,
    session: Option<String>,
    count: u64,
    /// Events that nobody waited for, oldest first.
    events: VecDeque<Value>,
    _profile: tempfile::TempDir,
}

const PATIENCE: Duration = Duration::from_mins(1);

impl Tab {
    /// Opens `page` (a file and what follows it, such as `#cell-1`).
    pub(crate) fn open(page: &Path, hash: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let (inward, outward) = (profile.path().join("in"), profile.path().join("out"));
        assert!(Command::new("mkfifo").args([&inward, &outward]).status().unwrap().success());
        // The browser listens on descriptor 3 and answers on 4.
        let browser = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<\"$IN\" 4>\"$OUT\"", name()])
            .env("IN", &inward)
            .env("OUT", &outward)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = OpenOptions::new().write(true).open(&inward).unwrap();
        let answers = BufReader::new(File::open(&outward).unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            for message in answers.split(0) {
                let Ok(message) = message else { return };
                let value = serde_json::from_slice(&message).expect("the browser speaks JSON");
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let mut tab = Self {
            browser,
            to,
            from,
            session: None,
            count: 0,
            events: VecDeque::new(),
            _profile: profile,
        };
        let target = tab.call("Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = tab.call("Target.attachToTarget", target);
        tab.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Runtime", "Log", "Network", "Page"] {
            tab.call(&format!("{domain}.enable"), json!({}));
        }
        tab.visit(&format!("file://{}{hash}", page.display()));
        tab
    }

    /// Goes to an address and waits until it is loaded.
    pub(crate) fn visit(&mut self, address: &str) {
        self.call("Page.navigate", json!({ "url": "about:blank" }));
        self.wait("Page.loadEventFired");
        self.call("Page.navigate", json!({ "url": address }));
        self.wait("Page.loadEventFired");
    }

    /// Calls a method of the protocol and gives its result.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.count += 1;
        let mut message = json!({ "id": self.count, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let mut answer = self.from.recv_timeout(left).unwrap_or_else(|_| panic!("{method}"));
            if answer["id"].as_u64() == Some(self.count) {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.events.push_back(answer);
        }
    }

    fn wait(&mut self, event: &str) {
        let start = Instant::now();
        loop {
            if let Some(at) = self.events.iter().position(|one| one["method"] == event) {
                self.events.remove(at);
                return;
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            self.events.push_back(self.from.recv_timeout(left).expect(event));
        }
    }

    /// The value of a JavaScript expression.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut found = self.call("Runtime.evaluate", asked);
        assert!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        found["result"]["value"].take()
    }

    /// Waits until a JavaScript expression is `expected`: what follows an input event (a change
    /// of the address, a frame) follows it in the browser's own time.
    pub(crate) fn becomes(&mut self, expression: &str, expected: impl Into<Value>) {
        let (expected, start) = (expected.into(), Instant::now());
        loop {
            let found = self.value(expression);
            if found == expected {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{expression}: {found} and not {expected}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn mouse(&mut self, kind: &str, (x, y): (f64, f64)) {
        let button = if kind == "mouseMoved" { "none" } else { "left" };
        let event = json!({ "type": kind, "x": x, "y": y, "button": button, "clickCount": 1 });
        self.call("Input.dispatchMouseEvent", event);
    }

    /// Scrolls the first match of `selector` into view and gives its middle, once the frame with
    /// the scrolled page is drawn (before, the mouse would meet what stood there).
    fn middle(&mut self, selector: &str) -> (f64, f64) {
        let found = self.value(&format!(
            "(async () => {{ const e = document.querySelector({}); e.scrollIntoView({{block: \
             'center', behavior: 'instant'}}); const frame = () => new Promise(\
             requestAnimationFrame); await frame(); await frame(); \
             const b = e.getBoundingClientRect(); \
             return [b.x + b.width / 2, b.y + b.height / 2]; }})()",
            json!(selector)
        ));
        (found[0].as_f64().expect(selector), found[1].as_f64().expect(selector))
    }

    /// Presses and releases the mouse over `selector`.
    pub(crate) fn click(&mut self, selector: &str) {
        let place = self.middle(selector);
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            self.mouse(kind, place);
        }
    }

    /// Moves the mouse over `selector`.
    pub(crate) fn hover(&mut self, selector: &str) {
        let place = self.middle(selector);
        self.mouse("mouseMoved", (place.0 + 1.0, place.1));
        self.mouse("mouseMoved", place);
    }

    /// Presses a key by its name and code.
    pub(crate) fn key(&mut self, name: &str, code: u32) {
        let text = if name == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({
                "type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code,
                "text": if kind == "keyDown" { text } else { "" },
            });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Types into what has the focus.
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Size of the window in CSS pixels; `mobile` for a phone.
    pub(crate) fn resize(&mut self, width: u32, height: u32, mobile: bool) {
        let size = json!({
            "width": width, "height": height, "mobile": mobile, "deviceScaleFactor": 1,
        });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// `screen` or `print`, `light` or `dark`.
    pub(crate) fn medium(&mut self, medium: &str, scheme: &str) {
        let scheme = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "media": medium, "features": scheme }));
    }

    /// The whole page as a PNG in the folder that GAUNTLET_SCREENSHOTS names, where it does.
    pub(crate) fn picture(&mut self, name: &str) {
        let Ok(folder) = std::env::var("GAUNTLET_SCREENSHOTS") else { return };
        let asked = json!({ "captureBeyondViewport": true });
        let found = self.call("Page.captureScreenshot", asked);
        let path = Path::new(&folder).join(format!("{name}.png.base64"));
        std::fs::write(path, found["data"].as_str().unwrap()).unwrap();
    }

    /// What the console and the log said, and every address that was asked for.
    pub(crate) fn said_and_asked(&mut self) -> (Vec<String>, Vec<String>) {
        self.value("0"); // whatever was under way has arrived after this
        let (mut said, mut asked) = (Vec::new(), Vec::new());
        for event in &self.events {
            match event["method"].as_str().unwrap_or_default() {
                "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" => {
                    said.push(event["params"].to_string());
                }
                "Network.requestWillBeSent" => {
                    let address = event["params"]["request"]["url"].as_str().unwrap_or_default();
                    asked.push(address.to_owned());
                }
                _ => {}
            }
        }
        (said, asked)
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}
