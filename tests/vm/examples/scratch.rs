//! scratch
use ism_harness::*;
use ism_vm_tests::*;
use std::time::{Duration, Instant};
fn main() -> anyhow::Result<()> {
    let mode = if std::env::args().any(|a| a == "copied") { Mode::Copied } else { Mode::Mapped };
    let pair = Pair::boot(mode)?;
    let (a, b) = (&pair.a, &pair.b);
    let _server = serve(a, "")?;
    for n in [10, 100, 300, 1000] {
        let t = Instant::now();
        let mut r = b.spawn(&client(a, &format!("--count {n} --bytes 1000")))?;
        let ok = r.wait_for_output("intact", Duration::from_secs(9)).is_ok();
        println!("{n}: {:?} {}", t.elapsed(), r.output());
        if !ok {
            for vm in [a, b] {
                println!("== {}\n{}", vm.name(), vm.run("smcd socket show; smcd linkgroup show; smcd fallback show; grep . /sys/bus/virtio/drivers/virtio_ism/virtio*/ism/*; dmesg | tail -5; ps | grep -v '\\[' ; for p in $(pidof ism-stream); do cat /proc/$p/task/*/wchan; echo; cat /proc/$p/task/*/stack; done")?.stdout);
            }
            println!("{}", pair.fabric.ctl(&["stats"])?);
            let o = std::process::Command::new("bash").arg("-c").arg(format!("for p in $(pgrep -f 'release/vhost-user-ism --mode mapped --control-socket {}'); do for f in /proc/$p/fd/*; do case $(readlink $f) in *ism-arena*) echo $f $(readlink $f); xxd -l 65536 -s 0 $f | grep -v ': 0000 0000 0000 0000 0000 0000 0000 0000'; for o in 65536 131072 196608 262144; do xxd -s $o -l 48 $f; done;; esac; done; done", pair.fabric.socket("a").parent().unwrap().display())).output()?;
            println!(
                "{}{}",
                String::from_utf8_lossy(&o.stdout),
                String::from_utf8_lossy(&o.stderr)
            );
            break;
        }
    }
    Ok(())
}
