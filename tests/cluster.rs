//! A Slurm of its own on this machine: munged, slurmctld and slurmd in a temporary folder, without
//! systemd, cgroups or sacct.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub(super) struct Cluster {
    folder: tempfile::TempDir,
    daemons: Vec<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn host() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    host.trim().split('.').next().unwrap().to_owned()
}

impl Cluster {
    /// Starts the daemons and waits for the node.
    pub(super) fn start() -> Self {
        // A socket's path must be short, whatever TMPDIR says.
        let folder = tempfile::Builder::new().prefix("slurm").tempdir_in("/tmp").unwrap();
        for part in ["state", "spool", "log", "bin"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        let mut cluster = Self { folder, daemons: Vec::new() };
        cluster.write("munge.key", &"0123456789abcdef".repeat(8));
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(cluster.path("munge.key"), private).unwrap();
        // Nothing may lean on accounting: whoever calls sacct leaves a trace.
        cluster.write("bin/sacct", "#!/bin/sh\ntouch \"$(dirname \"$0\")/../sacct-was-called\"\n");
        let all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(cluster.path("bin/sacct"), all).unwrap();
        cluster.write("slurm.conf", &cluster.configuration());
        let at = |name: &str| cluster.path(name).display().to_string();
        let munge = [
            "--foreground".to_owned(),
            "--force".to_owned(),
            format!("--key-file={}", at("munge.key")),
            format!("--socket={}", at("munge.socket")),
            format!("--pid-file={}", at("munged.pid")),
            format!("--log-file={}", at("log/munged")),
            format!("--seed-file={}", at("munge.seed")),
        ];
        let slurm = ["-D".to_owned(), "-f".to_owned(), at("slurm.conf")];
        cluster.daemon("munged", &munge);
        cluster.wait("munge's socket", |cluster| cluster.path("munge.socket").exists());
        cluster.daemon("slurmctld", &slurm);
        cluster.daemon("slurmd", &slurm);
        cluster.wait("idle node", |cluster| cluster.nodes().contains("idle"));
        cluster
    }

    fn configuration(&self) -> String {
        let (at, host) = (self.folder.path().display(), host());
        let (controller, node) = (free_port(), free_port());
        format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\n\
             AuthType=auth/munge\nAuthInfo=socket={at}/munge.socket\nCredType=cred/munge\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\n\
             SchedulerParameters=sched_interval=1,bf_interval=1\nStateSaveLocation={at}/state\n\
             SlurmdSpoolDir={at}/spool\nSlurmctldLogFile={at}/log/slurmctld\n\
             SlurmdLogFile={at}/log/slurmd\nSlurmctldPidFile={at}/slurmctld.pid\n\
             SlurmdPidFile={at}/slurmd.pid\nSlurmctldPort={controller}\nSlurmdPort={node}\n\
             ReturnToService=2\nMpiDefault=none\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000\n\
             PartitionName=main Nodes={host} Default=YES State=UP\n"
        )
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A command that finds this Slurm, in the cluster's folder.
    pub(super) fn command(&self, program: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}:/usr/sbin:/sbin", self.path("bin").display());
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).env("PATH", path);
        command.env("SLURM_CONF", self.path("slurm.conf")).env_remove("GAUNTLET_STORE");
        command
    }

    fn daemon(&mut self, program: &str, arguments: &[String]) {
        let log = fs::File::create(self.path(&format!("log/{program}.out"))).unwrap();
        let mut command = self.command(program);
        command.args(arguments).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn();
        self.daemons.push(child.unwrap_or_else(|error| {
            panic!("{program}: {error}; install Debian's slurm-wlm, as .ci/run does")
        }));
    }

    /// What one of Slurm's programs answers.
    pub(super) fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// State of the node.
    pub(super) fn nodes(&self) -> String {
        self.ask("sinfo", &["-h", "-o", "%T"])
    }

    /// Drains or resumes the node.
    pub(super) fn set_node(&self, state: &str) {
        let node = format!("nodename={}", host());
        self.ask("scontrol", &["update", &node, &format!("state={state}"), "reason=test"]);
    }

    /// Tasks of the stage in that state: `7_0`.
    pub(super) fn tasks(&self, stage: &str, state: &str) -> Vec<String> {
        let name = format!("--name=gauntlet-{stage}");
        let text = self.ask("squeue", &["-h", "-r", "-t", state, &name, "-o", "%i"]);
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// Waits until `ready`; panics with the queue and the logs after two minutes.
    pub(super) fn wait(&self, what: &str, ready: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !ready(self) {
            if started.elapsed() > Duration::from_mins(2) {
                let logs = ["munged.out", "slurmctld", "slurmd"].map(|name| {
                    fs::read_to_string(self.path(&format!("log/{name}"))).unwrap_or_default()
                });
                panic!("no {what}:\n{}\n{}", self.ask("squeue", &["-r"]), logs.join("\n"));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.ask("scancel", &["--me"]);
        for child in self.daemons.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
