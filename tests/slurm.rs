//! A suite through a real Slurm: interrupted and followed again, a job killed, a job warned of its
//! time limit, the node drained; its results are those of a local run to the last bit.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::cluster::Cluster;

const SUITE: &str = "\
suite: cluster
data: {name: synthetic, resolution: 8, train: {count: 64}, test: {count: 16}}
threats: {linf: {norm: linf, epsilon: 8/255}}
denoiser: {channels: 8, channel_mult: [1], blocks: 1, attention: [], images: 200, batch: 20,
           ramp: 100, ema_half_life: 100, dropout: 0, augment: 0, flip: false}
sampler: {steps: 2}
generated: {batch: 10, count: 20}
train: {arch: wrn-10-1-swish, epochs: 80, batch: 16, attack_steps: 2, validation: 8,
        validation_steps: 1, validate_every: 10}
evaluate: {attacks: [apgd-ce], steps: 2, batch: 16}
quality: {images: 0}
axes: {product: [train.beta: [2, 4]]}
";

const RUN: [&str; 9] =
    ["run", "suite.yaml", "--engine", "slurm", "--store", "remote", "--out", "o", "--json"];

fn gauntlet(cluster: &Cluster) -> Command {
    cluster.command(env!("CARGO_BIN_EXE_gauntlet"))
}

/// What results rest on, byte by byte.
fn results(store: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for artifact in fs::read_dir(store.join("artifacts")).unwrap() {
        let artifact = artifact.unwrap().path();
        for name in ["denoiser.safetensors", "images.npz", "best.safetensors", "records.parquet"] {
            if let Ok(bytes) = fs::read(artifact.join(name)) {
                found.insert(format!("{}/{name}", artifact.file_name().unwrap().display()), bytes);
            }
        }
    }
    found
}

/// The processes that run `job`, not the shells around them.
fn processes(job: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        let runs = words.get(1) == Some(&b"exec".as_slice());
        if runs && words.contains(&job.as_bytes()) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

/// The jobs of the array's tasks, in order, as the engine noted them.
fn jobs_of(cluster: &Cluster, task: &str) -> Vec<String> {
    let array = task.split('_').next().unwrap();
    let text = fs::read_to_string(cluster.path(&format!("remote/slurm/{array}.json"))).unwrap();
    let noted: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ids = noted["jobs"].as_array().unwrap();
    ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// Starts a run, interrupts it while its jobs are in the queue, and sees that they stay there.
fn interrupt(cluster: &Cluster) {
    let mut first = gauntlet(cluster).args(RUN).stdout(Stdio::null()).spawn().unwrap();
    cluster.wait("whole suite in the queue", |cluster| {
        cluster.tasks("evaluate", "PENDING").len() == 2
    });
    assert!(
        Command::new("kill").args(["-INT", &first.id().to_string()]).status().unwrap().success()
    );
    assert_eq!(first.wait().unwrap().code(), Some(130));
    assert_eq!(cluster.tasks("evaluate", "PENDING").len(), 2, "the jobs stay in the queue");
}

#[test]
#[ignore = "needs Slurm and root: .ci/run installs slurm-wlm"]
fn a_real_slurm_gives_what_a_local_run_gives() {
    let cluster = Cluster::start();
    cluster.write("suite.yaml", SUITE);
    cluster.write("cluster.yaml", "partition: main\ncpus: 1\npoll: 1\nsignal: 30\n");
    interrupt(&cluster);
    let log = fs::File::create(cluster.path("second.log")).unwrap();
    let mut second = gauntlet(&cluster);
    let second = second.args(RUN).stdout(Stdio::piped()).stderr(log).spawn().unwrap();

    // Both trainings at work: one is killed as a system kills for memory, the other is warned.
    cluster.wait("two trainings", |cluster| {
        let tasks = cluster.tasks("train", "RUNNING");
        let work = |job: &String| cluster.path(&format!("remote/work/{job}")).exists();
        tasks.len() == 2 && jobs_of(cluster, &tasks[0]).iter().all(work)
    });
    let arrays = fs::read_dir(cluster.path("remote/slurm")).unwrap().flatten();
    let lists = arrays.filter(|file| file.path().extension().is_some_and(|end| end == "list"));
    assert_eq!(lists.count(), 4, "the second run follows the first one's arrays");
    let tasks = cluster.tasks("train", "RUNNING");
    let warned = tasks.iter().find(|task| task.ends_with("_1")).unwrap();
    let killed = &jobs_of(&cluster, warned)[0];
    cluster.ask("scancel", &["--batch", "--signal=USR1", warned]);
    let victims = processes(killed);
    assert!(!victims.is_empty(), "the training was at work");
    Command::new("kill").arg("-KILL").args(&victims).status().unwrap();
    cluster.set_node("drain");
    cluster.wait("requeue", |cluster| {
        cluster.ask("scontrol", &["show", "job", warned]).contains("Restarts=1")
    });
    cluster.wait("second attempt at the killed job", |cluster| {
        cluster.tasks("train", "PENDING").len() == 2
    });

    // The drained node starts nothing, and the run says so; resumed, everything goes on. Slurm
    // holds requeued jobs back for two minutes: the test does not wait for that.
    cluster.ask("scontrol", &["update", &format!("jobid={warned}"), "StartTime=now"]);
    let said = |cluster: &Cluster| fs::read_to_string(cluster.path("second.log")).unwrap();
    cluster.wait("word on the drained node", |cluster| said(cluster).contains("waits in Slurm"));
    assert!(cluster.nodes().contains("drained"), "{}", cluster.nodes());
    assert!(cluster.tasks("train", "RUNNING").is_empty());
    cluster.set_node("resume");

    let output = second.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", said(&cluster));
    assert!(said(&cluster).contains("submitted again after"), "{}", said(&cluster));
    let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["failed"], &summary["jobs"]), (&0.into(), &6.into()), "{summary}");
    let again = gauntlet(&cluster).args(RUN).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stdout).contains("\"run\":0,\"cached\":6"));
    assert!(!cluster.path("sacct-was-called").exists(), "nothing needs accounting");
    same_as_local(&cluster);
}

/// Floating-point sums depend on the number of threads, so the local run has one core as well.
fn same_as_local(cluster: &Cluster) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let core = cores.trim().split(['-', ',']).next().unwrap();
    let mut local = cluster.command("taskset");
    local.args(["-c", core, env!("CARGO_BIN_EXE_gauntlet")]);
    local.args(["run", "suite.yaml", "--store", "local", "--out", "p", "--device", "cpu"]);
    assert!(local.output().unwrap().status.success());
    let (remote, local) = (results(&cluster.path("remote")), results(&cluster.path("local")));
    assert_eq!(remote.len(), 6);
    assert_eq!(remote.keys().collect::<Vec<_>>(), local.keys().collect::<Vec<_>>());
    for (name, bytes) in &remote {
        assert!(*bytes == local[name], "{name} differs between Slurm and here");
    }
}

#[test]
#[ignore = "needs Slurm and root: .ci/run installs slurm-wlm"]
fn a_refused_submission_says_why() {
    let cluster = Cluster::start();
    cluster.write("suite.yaml", SUITE);
    cluster.write("cluster.yaml", "partition: nowhere\npoll: 1\n");
    let output = gauntlet(&cluster).args(RUN).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("sbatch") && message.contains("partition"), "{message}");
}
