//! What each path says when the file was cut, and when the disk has an error (a loop device whose file was cut).

use std::fs::{self, File};
use std::io;
use std::path::Path as FilePath;
use std::process::Command;

use crate::path::{ALL, Path, Reader};

const LEN: usize = 4 << 20;
const AT: u64 = 2 << 20;

pub fn run(dir: &FilePath) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    println!("| path | file was cut | disk error |\n|---|---|---|");
    for path in ALL {
        let (cut, backing) = (dir.join("cut"), dir.join("backing"));
        for name in [&cut, &backing] {
            fs::write(name, vec![1; LEN])?;
            File::open(name)?.sync_all()?;
        }
        let device = losetup(&["--show", "-f", &backing.to_string_lossy()])?;
        let after_cut = in_child(path, &cut, || File::options().write(true).open(&cut)?.set_len(4096));
        let after_error = in_child(path, FilePath::new(&device), || {
            File::options().write(true).open(&backing)?.set_len(4096)?;
            crate::forget(&File::open(&device)?)
        });
        losetup(&["-d", &device])?;
        println!("| {path:?} | {} | {} |", after_cut?, after_error?);
    }
    fs::remove_dir_all(dir)
}

fn losetup(arguments: &[&str]) -> io::Result<String> {
    let output = Command::new("losetup").args(arguments).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Opens, does the damage, reads in a child, and tells how that ended.
fn in_child(path: Path, name: &FilePath, damage: impl FnOnce() -> io::Result<()>) -> io::Result<String> {
    // SAFETY: this process has one thread; the child reads once and exits without returning.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let read = crate::runtime().block_on(async {
            let mut reader = Reader::open(path, name, LEN)?;
            damage()?;
            reader.read(AT, 4096).await
        });
        let code = match read {
            Ok(_) => 0,
            Err(error) => error.raw_os_error().unwrap_or(255),
        };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the child is ours, and the pointer outlives the call.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    if libc::WIFSIGNALED(status) {
        return Ok(format!("the process dies of signal {}", libc::WTERMSIG(status)));
    }
    Ok(match libc::WEXITSTATUS(status) {
        0 => "bytes, and no error".to_owned(),
        255 => "an error: the file ends".to_owned(),
        code => format!("an error: {}", io::Error::from_raw_os_error(code)),
    })
}
