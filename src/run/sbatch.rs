//! What gauntlet says to Slurm and how it reads the answers: sbatch, squeue, scontrol.

use std::{collections::HashMap, fmt::Write, fs, path::Path, process::Command};

use crate::{
    error::{AtPath, Error, Result},
    suite::cluster::{Cluster, Resources},
};

/// A task of an array: the array's id and the task's index.
pub(super) type Task = (u64, u64);

/// One word of a shell command.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The script of an array. Task `n` runs the job on line `n + 1` of `list` (an id, and how often
/// its batch is halved). When Slurm warns of the time limit, the job saves, and goes back into the
/// queue to go on from there.
pub(super) fn script(
    cluster: &Cluster,
    resources: &Resources,
    program: &Path,
    store: &Path,
    list: &Path,
) -> String {
    let mut text = "#!/bin/sh\n".to_owned();
    for line in &cluster.setup {
        let _ = writeln!(text, "{line}");
    }
    let device = if resources.gpus > 0 { "auto" } else { "cpu" };
    let (program, list) = (program.to_string_lossy(), list.to_string_lossy());
    let store = store.to_string_lossy();
    let _ = write!(
        text,
        "threads={cpus}\n\
         export OMP_NUM_THREADS=$threads MKL_NUM_THREADS=$threads\n\
         line=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" {list})\n\
         id=${{line%% *}}\n\
         {program} exec --job \"$id\" --halvings \"${{line##* }}\" --store {store} \\\n    \
         --device {device} --threads $threads >/dev/null 2>>{store}/logs/\"$id\".log &\n\
         child=$!\n\
         again=\n\
         trap 'again=1; kill -TERM $child 2>/dev/null' USR1\n\
         while :; do\n    \
         wait $child\n    \
         code=$?\n    \
         kill -0 $child 2>/dev/null || break\n\
         done\n\
         if [ -n \"$again\" ] && [ $code -eq 130 ]; then\n    \
         scontrol requeue \"${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID\" && sleep 60\n\
         fi\n\
         exit $code\n",
        cpus = resources.cpus,
        program = quoted(&program),
        list = quoted(&list),
        store = quoted(&store),
    );
    text
}

/// Submits an array of `count` tasks that begins once the arrays `after` have ended; gives its id.
pub(super) fn submit(
    cluster: &Cluster,
    resources: &Resources,
    (name, count): (&str, usize),
    script: &Path,
    after: &[u64],
) -> Result<u64> {
    let mut command = Command::new("sbatch");
    let width = resources.width.map(|width| format!("%{width}")).unwrap_or_default();
    let output = script.with_extension("%a.out");
    command.arg("--parsable").arg(format!("--array=0-{}{width}", count - 1));
    command.arg(format!("--job-name=gauntlet-{name}"));
    command.arg(format!("--output={}", output.display()));
    command.arg("--open-mode=append").arg(format!("--cpus-per-task={}", resources.cpus));
    command.arg("--kill-on-invalid-dep=yes");
    let words = [
        ("partition", &resources.partition),
        ("account", &resources.account),
        ("qos", &resources.qos),
        ("mem", &resources.memory),
        ("time", &resources.time),
    ];
    for (flag, value) in words {
        if let Some(value) = value {
            command.arg(format!("--{flag}={value}"));
        }
    }
    if resources.gpus > 0 {
        command.arg(format!("--gres=gpu:{}", resources.gpus));
    }
    if cluster.signal > 0 {
        command.arg(format!("--signal=B:USR1@{}", cluster.signal));
    }
    command.arg(if cluster.requeue { "--requeue" } else { "--no-requeue" });
    if !after.is_empty() {
        let ids: Vec<_> = after.iter().map(ToString::to_string).collect();
        // Whether an input is there is for the job itself to see: any end of the array will do.
        command.arg(format!("--dependency=afterany:{}", ids.join(":")));
    }
    command.args(&resources.flags).arg(script);
    let text = answer(&mut command)?;
    let id = text.trim().split(';').next().and_then(|id| id.parse().ok());
    id.ok_or_else(|| {
        Error::input(format!("sbatch answered `{}` instead of a job's id", text.trim()))
    })
}

/// Tasks in the queue with their state and reason.
pub(super) fn queue() -> Result<HashMap<Task, (String, String)>> {
    let mut command = Command::new("squeue");
    command.args(["--me", "--noheader", "--array", "--format=%F|%K|%T|%R"]);
    let text = answer(&mut command)?;
    let mut found = HashMap::new();
    for line in text.lines() {
        let parts: Vec<_> = line.trim().split('|').collect();
        let &[array, task, state, reason] = parts.as_slice() else { continue };
        if let (Ok(array), Ok(task)) = (array.parse(), task.parse()) {
            // In words and in brackets while the task waits, where `%r` only says `Resources` of a
            // node that is drained.
            let reason = reason.trim_matches(['(', ')']);
            found.insert((array, task), (state.to_owned(), reason.to_owned()));
        }
    }
    Ok(found)
}

/// How a task ended, as long as Slurm remembers: its state and exit code.
pub(super) fn end((array, task): Task) -> Option<(String, String)> {
    let mut command = Command::new("scontrol");
    command.args(["show", "job", &format!("{array}_{task}")]);
    let text = answer(&mut command).ok()?;
    let word = |key: &str| {
        let found = text.split_whitespace().find_map(|word| word.strip_prefix(key));
        found.map(str::to_owned)
    };
    Some((word("JobState=")?, word("ExitCode=").unwrap_or_default()))
}

fn answer(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().at(Path::new(&program))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(Error::input(format!("{program}: {}", why.trim())))
}

/// Writes a file of the submission folder.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).at(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_shell_whatever_the_paths() {
        let cluster = Cluster { setup: vec!["export A='1 2'".to_owned()], ..Cluster::default() };
        let text = script(
            &cluster,
            &cluster.all,
            Path::new("/opt/it's here/gauntlet"),
            Path::new("/data/my store"),
            Path::new("/data/my store/slurm/1.list"),
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sh");
        fs::write(&path, &text).unwrap();
        let check = Command::new("sh").arg("-n").arg(&path).output().unwrap();
        assert!(check.status.success(), "{}\n{text}", String::from_utf8_lossy(&check.stderr));
        assert!(text.contains("'/opt/it'\\''s here/gauntlet' exec"));
    }
}
