// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! OpenSSH: a server with a key of its own; files go there and back by scp, sftp and ssh, with their sums.
//!
//! Invariant: the machine's own configuration and keys are not used.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ism_programs::{
    Running, Way, compare, need, output, output_of, run, unused_port, wait_for_port,
};
use tempfile::TempDir;

/// Bytes of the file.
const SIZE: usize = 8 << 20;
/// The folder that its server wants to be there.
const EMPTY: &str = "/run/sshd";
/// The user whose server processes give up root.
const USER: &str = "www-data";

/// A server, and keys of both sides.
struct Ssh<'a> {
    way: Way<'a>,
    folder: TempDir,
    port: u16,
    _server: Running,
}

fn key(path: &Path) -> Result<()> {
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path))
}

impl<'a> Ssh<'a> {
    fn start(way: Way<'a>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        fs::create_dir_all(EMPTY)?;
        let place = |name: &str| folder.path().join(name);
        for name in ["host", "own"] {
            key(&place(name))?;
        }
        let port = unused_port()?;
        let at = folder.path().display();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {at}/host\nAuthorizedKeysFile {at}/own.pub\n\
             PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n\
             Subsystem sftp internal-sftp\nMatch User {USER}\nForceCommand internal-sftp\n"
        );
        fs::write(place("config"), config)?;
        // It executes itself, for which it wants its whole name.
        let mut server = way.command("/usr/sbin/sshd");
        let server = Running::start(server.args(["-D", "-e", "-f"]).arg(place("config")))?;
        wait_for_port(port)?;
        Ok(Self { way, folder, port, _server: server })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One of its clients.
    fn client(&self, program: &str) -> Command {
        let mut client = self.way.command(program);
        client.args(["-q", "-F", "none", "-i"]).arg(self.path("own"));
        let options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"];
        client.args(options.map(|option| format!("-o{option}")));
        client.arg(format!("-oPort={}", self.port));
        client
    }

    /// What a command there says of a file here.
    fn at_root(&self, command: &str, input: &Path) -> Result<Vec<u8>> {
        let mut ssh = self.client("ssh");
        output_of(ssh.args(["root@127.0.0.1", command]).stdin(File::open(input)?))
    }

    fn sum(&self, name: &str) -> Result<String> {
        let said = output(Command::new("sha256sum").arg(self.path(name)))?;
        let said = String::from_utf8(said)?;
        Ok(said.split(' ').next().context("no sum")?.to_owned())
    }
}

#[test]
fn openssh_carries_files_there_and_back() {
    need("sshd", "openssh-server");
    need("sftp", "openssh-client");
    compare(|way| {
        let ssh = Ssh::start(way)?;
        let bytes: Vec<u8> =
            (0..SIZE).map(|n| u8::try_from(n * n / 7 % 251).unwrap_or(0)).collect();
        fs::write(ssh.path("file"), &bytes)?;
        let sum = ssh.sum("file")?;
        let said = ssh.at_root("sha256sum", &ssh.path("file"))?;
        ensure!(said.starts_with(sum.as_bytes()), "it arrived changed");
        let there = ssh.path("file").display().to_string();
        let back = ssh.at_root(&format!("cat {there}"), Path::new("/dev/null"))?;
        ensure!(back == bytes, "{} bytes came back of {SIZE}", back.len());
        for (user, copy) in [("root", "copied"), (USER, "of-user")] {
            let to = ssh.path(copy);
            run(ssh.client("scp").arg(format!("{user}@127.0.0.1:{there}")).arg(&to))?;
            ensure!(ssh.sum(copy)? == sum, "scp of {user} has changed it");
        }
        let batch = ssh.path("batch");
        fs::write(&batch, format!("put {there} {there}-put\nget {there}-put {there}-got\n"))?;
        run(ssh.client("sftp").arg("-b").arg(&batch).arg("root@127.0.0.1"))?;
        ensure!(ssh.sum("file-got")? == sum, "sftp has changed it");
        if let Way::Smc(lab) = way {
            // The server executes itself for each connection: on a busy machine that may take longer than its client
            // waits, and the connection is TCP's then.
            ensure!(!lab.log().contains(": reset: "), "a connection was reset");
        }
        Ok(sum)
    });
}
