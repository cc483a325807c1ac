//! Suites that the binary carries, so that it has something to show on any machine.

/// Name, file as messages show it, text.
const SUITES: [(&str, &str, &str); 1] =
    [("demo", "suites/demo.yaml (built in)", include_str!("../../suites/demo.yaml"))];

/// The file name and text of the built-in suite that `argument` names (`demo`, `suites/demo.yaml`).
pub fn find(argument: &str) -> Option<(&'static str, &'static str)> {
    let name = argument.strip_prefix("suites/").unwrap_or(argument);
    let name = name.strip_suffix(".yaml").unwrap_or(name);
    SUITES.iter().find(|suite| suite.0 == name).map(|suite| (suite.1, suite.2))
}
