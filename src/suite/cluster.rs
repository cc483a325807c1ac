//! `cluster.yaml`: how jobs become Slurm jobs. Everything wrong with it is said in one pass.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{
    error::{AtPath, Result},
    suite::{
        problem::{self, suggestion},
        reader::Reader,
        yaml::{Entry, Node, parse},
    },
};

/// What a job of some stage asks of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// Partition.
    pub partition: Option<String>,
    /// Account that pays.
    pub account: Option<String>,
    /// Quality of service.
    pub qos: Option<String>,
    /// GPUs of a job.
    pub gpus: u64,
    /// Cores of a job.
    pub cpus: u64,
    /// Memory of a job, as Slurm writes it: `16G`.
    pub memory: Option<String>,
    /// Time limit, as Slurm writes it: `24:00:00`.
    pub time: Option<String>,
    /// Tasks of an array that run at once.
    pub width: Option<u64>,
    /// More flags of sbatch.
    pub flags: Vec<String>,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// What jobs ask for where their stage says nothing.
    pub all: Resources,
    /// What jobs of a stage ask for.
    pub stages: BTreeMap<String, Resources>,
    /// Seconds before the time limit at which a job saves and goes back into the queue; 0 for never.
    pub signal: u64,
    /// Whether Slurm may put a job back into the queue after a node failed.
    pub requeue: bool,
    /// Shell lines before each job: modules, proxies.
    pub setup: Vec<String>,
    /// Seconds between two looks at the queue.
    pub poll: u64,
}

impl Default for Cluster {
    fn default() -> Self {
        let all = Resources {
            partition: None,
            account: None,
            qos: None,
            gpus: 0,
            cpus: 1,
            memory: None,
            time: None,
            width: None,
            flags: Vec::new(),
        };
        Self {
            all,
            stages: BTreeMap::new(),
            signal: 120,
            requeue: true,
            setup: Vec::new(),
            poll: 15,
        }
    }
}

const STAGES: [&str; 6] = ["import", "fit", "generate", "label", "train", "evaluate"];
const RESOURCES: [&str; 9] =
    ["partition", "account", "qos", "gpus", "cpus", "memory", "time", "width", "flags"];
const OWN: [&str; 5] = ["stages", "signal", "requeue", "setup", "poll"];

impl Cluster {
    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read, or every complaint about it at once.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).at(path)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads `text`; `file` is for messages.
    ///
    /// # Errors
    /// Every complaint at once.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let files = [file.to_owned()];
        let node = parse(text).map_err(|problems| problem::error(&files, problems))?;
        let mut reader = Reader::default();
        let mut cluster = Self::default();
        let mut stages = None;
        for entry in reader.entries(&node, "cluster") {
            let value = &entry.value;
            match entry.key.as_str() {
                "stages" => stages = Some(value),
                "signal" => cluster.signal = count(entry, 0, &mut reader).unwrap_or_default(),
                "poll" => cluster.poll = count(entry, 1, &mut reader).unwrap_or(1),
                "setup" => cluster.setup = texts(entry, &mut reader),
                "requeue" => match value.text() {
                    Some("true") => cluster.requeue = true,
                    Some("false") => cluster.requeue = false,
                    _ => wrong(entry, "true or false", &mut reader),
                },
                _ => resource(&mut cluster.all, entry, &OWN, &mut reader),
            }
        }
        if let Some(node) = stages {
            cluster.read_stages(node, &mut reader);
        }
        if reader.problems.is_empty() {
            return Ok(cluster);
        }
        Err(problem::error(&files, reader.problems))
    }

    fn read_stages(&mut self, node: &Node, reader: &mut Reader) {
        for entry in reader.entries(node, "stages") {
            if !STAGES.contains(&entry.key.as_str()) {
                let message =
                    format!("unknown stage: {}", suggestion(&entry.key, STAGES.into_iter()));
                reader.problem(Some(entry.at), &format!("stages.{}", entry.key), message);
                continue;
            }
            let mut own = self.all.clone();
            for inner in reader.entries(&entry.value, &entry.key) {
                resource(&mut own, inner, &[], reader);
            }
            self.stages.insert(entry.key.clone(), own);
        }
    }

    /// What a job of that stage asks for.
    pub fn of(&self, stage: &str) -> &Resources {
        self.stages.get(stage).unwrap_or(&self.all)
    }
}

fn resource(resources: &mut Resources, entry: &Entry, more: &[&'static str], reader: &mut Reader) {
    match entry.key.as_str() {
        "partition" => resources.partition = text(entry, reader),
        "account" => resources.account = text(entry, reader),
        "qos" => resources.qos = text(entry, reader),
        "memory" => resources.memory = text(entry, reader),
        "time" => resources.time = text(entry, reader),
        "gpus" => resources.gpus = count(entry, 0, reader).unwrap_or_default(),
        "cpus" => resources.cpus = count(entry, 1, reader).unwrap_or(1),
        "width" => resources.width = count(entry, 1, reader),
        "flags" => resources.flags = texts(entry, reader),
        other => {
            let names = RESOURCES.into_iter().chain(more.iter().copied());
            let message = format!("unknown key: {}", suggestion(other, names));
            reader.problem(Some(entry.at), other, message);
        }
    }
}

fn wrong(entry: &Entry, expected: &str, reader: &mut Reader) {
    let message = format!("{} does not fit: expected {expected}", entry.value.shown());
    reader.problem(Some(entry.value.at), &entry.key, message);
}

fn text(entry: &Entry, reader: &mut Reader) -> Option<String> {
    // A word that sbatch takes: a line break would be another line of its script.
    let found = entry.value.text().filter(|text| !text.is_empty() && !text.contains(['\n', '\0']));
    if found.is_none() {
        wrong(entry, "a text", reader);
    }
    found.map(str::to_owned)
}

fn count(entry: &Entry, low: u64, reader: &mut Reader) -> Option<u64> {
    let found = entry.value.text().and_then(|text| text.parse().ok()).filter(|n| *n >= low);
    if found.is_none() {
        wrong(entry, &format!("a whole number of at least {low}"), reader);
    }
    found
}

fn texts(entry: &Entry, reader: &mut Reader) -> Vec<String> {
    let items = reader.items(&entry.value, &entry.key);
    let found: Vec<_> = items.iter().filter_map(|item| item.text().map(str::to_owned)).collect();
    if found.len() < items.len() {
        wrong(entry, "a list of texts", reader);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_build_on_what_holds_for_all() {
        let text = "partition: gpu\ncpus: 8\ntime: 1-00:00:00\nstages:\n  train: {gpus: 2, time: 2:00:00}\n";
        let cluster = Cluster::parse(text, "c").unwrap();
        let train = cluster.of("train");
        assert_eq!((train.gpus, train.cpus, train.partition.as_deref()), (2, 8, Some("gpu")));
        assert_eq!(train.time.as_deref(), Some("2:00:00"));
        assert_eq!(cluster.of("fit").gpus, 0);
    }

    #[test]
    fn every_mistake_is_named_at_its_place() {
        let text = "partitoin: gpu\ncpus: 0\nstages: {trian: {}, fit: {gpu: 1}}\nrequeue: 3\n";
        let error = Cluster::parse(text, "c.yaml").unwrap_err().to_string();
        for part in [
            "c.yaml:1:1: partitoin",
            "`partition`",
            "c.yaml:2:7: cpus: `0`",
            "`train`",
            "`gpus`",
            "c.yaml:4:10",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
