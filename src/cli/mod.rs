//! The command line: one file per command, each with its clap `Args` and a `run`.

pub mod bar;
pub mod calibrate;
pub mod cells;
pub mod check;
pub mod collect;
pub mod compare;
mod contact;
pub mod convert;
pub mod data;
mod data_list;
mod data_verify;
pub mod doctor;
pub mod evaluate;
pub mod exec;
mod explain;
pub mod fid;
pub mod fit;
pub mod forward;
pub mod gather;
pub mod generate;
pub mod inspect;
pub mod leaderboard;
pub mod library;
pub mod ours;
pub mod plan;
pub mod quality;
pub mod report;
pub mod run;
pub mod schema;
mod screen;
mod sheets;
pub mod single;
pub mod status;
pub mod store;
pub mod terminal;
pub mod train;
mod verdict;
pub mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    error::{Result, caught},
    net::Classifier,
};

/// Adversarial robustness, declared in a suite and carried out from end to end.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Plan(plan::Args),
    Run(run::Args),
    Report(report::Args),
    Compare(compare::Args),
    Leaderboard(leaderboard::Args),
    Check(check::Args),
    Status(status::StatusArgs),
    Log(status::LogArgs),
    Store(store::Args),
    Exec(exec::Args),
    Evaluate(evaluate::Args),
    Verify(verify::Args),
    Data(data::Args),
    Doctor(doctor::Args),
    New(schema::NewArgs),
    Schema(schema::SchemaArgs),
    Calibrate(calibrate::Args),
    Inspect(inspect::Args),
    Convert(convert::Args),
    Forward(forward::Args),
    Train(train::Args),
    Generate(generate::Args),
    Collect(collect::Args),
    Fid(fid::Args),
    Quality(quality::Args),
    Fit(fit::Args),
    /// Writes a shell's completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What scripts see, at the end of the help of every command that has no codes of its own.
const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    some jobs failed (the others are done), or numbers went wrong
  2    the input is at fault: arguments, a suite, a file; the message says where
  3    the system refused: a file cannot be read or written
  130  interrupted; what is done is saved, the same command goes on";

fn parse() -> Cli {
    let command = with_codes(Cli::command()).mut_subcommands(with_codes);
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

fn with_codes(command: clap::Command) -> clap::Command {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    if help.contains("Exit codes") {
        return command;
    }
    command.after_help(format!("{help}\n\n{EXIT_CODES}").trim_start().to_owned())
}

/// Parses the arguments, runs the command and maps errors to the documented exit codes. A command
/// that needs tensors runs in the library beside the program.
pub fn main() -> ExitCode {
    let cli = parse();
    ended(at_once(cli.command).unwrap_or_else(library::hand_over))
}

/// The same with libtorch at hand, in the library.
fn compute() -> u8 {
    let cli = parse();
    crate::device::keep_memory();
    match caught(|| dispatch(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}

fn ended(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(error.exit_code())
    })
}

/// Runs a command that needs no tensor, if it is one. Nothing here may reach libtorch: the linker
/// leaves it out of the program because nothing does, and a test looks.
fn at_once(command: Command) -> Option<Result<ExitCode>> {
    let done = match command {
        Command::Plan(args) => plan::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Log(args) => status::log(&args),
        Command::Store(args) => store::run(&args),
        Command::New(args) => schema::new(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Leaderboard(args) => leaderboard::run(&args),
        Command::Compare(args) => return Some(compare::run(&args)),
        Command::Completions { shell } => {
            let mut stdout = std::io::stdout();
            clap_complete::generate(shell, &mut Cli::command(), "gauntlet", &mut stdout);
            Ok(())
        }
        _ => return None,
    };
    Some(done.map(|()| ExitCode::SUCCESS))
}

fn dispatch(command: Command) -> Result<u8> {
    let done = match command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Exec(args) => exec::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Forward(args) => forward::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Collect(args) => collect::run(&args),
        Command::Fid(args) => fid::run(&args),
        Command::Quality(args) => quality::run(&args),
        Command::Fit(args) => fit::run(&args),
        other => unreachable!("{other:?} runs at once"),
    };
    done.map(|()| 0)
}

/// Says on standard error which network a file was taken for, and what is not certain of it.
fn say_network(network: &dyn Classifier) {
    if let Some(architecture) = network.architecture() {
        eprintln!("network: {architecture}");
    }
    for remark in network.remarks() {
        eprintln!("{}", verdict::wrapped(&format!("warning: {remark}"), 80));
    }
}
