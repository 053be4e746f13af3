// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What sockperf, iperf3, wrk, redis-benchmark and programs of our own print, as numbers.
//!
//! Invariant: a figure is taken from the program's own summary or it is an error; never guessed.

use anyhow::{Context, Result, ensure};

/// The median latency (half a round trip) in µs of `sockperf ping-pong`.
pub(crate) fn sockperf_p50(output: &str) -> Result<f64> {
    number_after(output, "percentile 50.000 =")
}

/// The throughput in MB/s (10⁶ bytes) of `sockperf throughput`, which counts in 2²⁰ bytes.
pub(crate) fn sockperf_mb_per_s(output: &str) -> Result<f64> {
    Ok(number_after(output, "Summary: BandWidth is")? * f64::from(1 << 20) / 1e6)
}

/// The messages that came back, of `sockperf ping-pong`.
pub(crate) fn sockperf_received(output: &str) -> Result<u64> {
    count_after(output, "ReceivedMessages=")
}

/// The messages that `sockperf throughput` sent.
pub(crate) fn sockperf_sent(output: &str) -> Result<u64> {
    count_after(output, "Total of ")
}

/// The received throughput in Gbit/s of `iperf3 --json`.
pub(crate) fn iperf3_gbit_per_s(output: &str) -> Result<f64> {
    let json: serde_json::Value = serde_json::from_str(output).context("iperf3 printed no JSON")?;
    let bits = json.pointer("/end/sum_received/bits_per_second").and_then(|v| v.as_f64());
    let error = json.get("error").and_then(|e| e.as_str()).unwrap_or("no figure in its summary");
    Ok(bits.with_context(|| format!("iperf3: {error}"))? / 1e9)
}

/// The bytes that the server of `iperf3 --json` received.
pub(crate) fn iperf3_bytes(output: &str) -> Result<u64> {
    let json: serde_json::Value = serde_json::from_str(output).context("iperf3 printed no JSON")?;
    let bytes = json.pointer("/end/sum_received/bytes").and_then(serde_json::Value::as_u64);
    bytes.context("iperf3: no bytes in its summary")
}

/// Requests, and requests a second, of `wrk`'s summary; an error if it counts any.
pub(crate) fn wrk_requests(output: &str) -> Result<(u64, f64)> {
    for bad in ["Socket errors", "Non-2xx"] {
        ensure!(!output.contains(bad), "wrk counts errors:\n{output}");
    }
    let line = output.lines().find(|line| line.contains(" requests in "));
    let line = line.with_context(|| format!("no summary of wrk's:\n{output}"))?;
    let requests = line.split_whitespace().next().unwrap_or_default().parse()?;
    Ok((requests, number_after(output, "Requests/sec:")?))
}

/// Requests a second of GET in `redis-benchmark --csv`.
pub(crate) fn redis_get(output: &str) -> Result<f64> {
    let line = output.lines().find_map(|line| line.strip_prefix("\"GET\",\""));
    let number = line.and_then(|rest| rest.split('"').next());
    let number =
        number.with_context(|| format!("no GET in what redis-benchmark printed:\n{output}"))?;
    Ok(number.parse()?)
}

/// `WHAT COUNT seconds SECONDS`, as the plain program of ours prints it.
pub(crate) fn plain(output: &str, what: &str) -> Result<(u64, f64)> {
    Ok((count_after(output, &format!("{what} "))?, number_after(output, " seconds ")?))
}

/// How often the plain program's client slept.
pub(crate) fn plain_sleeps(output: &str) -> Result<u64> {
    count_after(output, " sleeps ")
}

/// Half a round trip in µs, as the program with iceoryx2 prints it.
pub(crate) fn iceoryx2(output: &str) -> Result<f64> {
    number_after(output, "half a round trip:")
}

/// The whole number that follows `label` at its first occurrence.
fn count_after(output: &str, label: &str) -> Result<u64> {
    let (_, rest) = output
        .split_once(label)
        .with_context(|| format!("no «{label}» in what the program printed:\n{output}"))?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().with_context(|| format!("no number after «{label}»"))
}

/// The number that follows `label` at its first occurrence.
fn number_after(output: &str, label: &str) -> Result<f64> {
    let (_, rest) = output
        .split_once(label)
        .with_context(|| format!("no «{label}» in what the program printed:\n{output}"))?;
    let word = rest.split_whitespace().next().unwrap_or_default();
    word.parse().with_context(|| format!("«{word}» after «{label}» is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockperf_ping_pong_summary() {
        let output = "sockperf: ---> percentile 99.000 =    6.664\n\
                      sockperf: ---> percentile 50.000 =    6.018\n";
        assert_eq!(sockperf_p50(output).unwrap(), 6.018);
    }

    #[test]
    fn sockperf_throughput_is_counted_in_mebibytes() {
        let output = "sockperf: Summary: BandWidth is 1000.000 MBps (8000.000 Mbps)\n";
        assert_eq!(sockperf_mb_per_s(output).unwrap(), 1048.576);
    }

    #[test]
    fn sockperf_counts_messages() {
        let output = "sockperf: [Total Run] RunTime=2.000 sec; Warm up time=400 msec; \
                      SentMessages=7; ReceivedMessages=6\n";
        assert_eq!(sockperf_received(output).unwrap(), 6);
        let output = "sockperf: Total of 54116 messages sent in 1.001 sec\n";
        assert_eq!(sockperf_sent(output).unwrap(), 54116);
    }

    #[test]
    fn iperf3_takes_what_was_received() {
        let output = r#"{"end":{"sum_sent":{"bits_per_second":2e9},
                         "sum_received":{"bits_per_second":1.5e9,"bytes":9}}}"#;
        assert_eq!(iperf3_gbit_per_s(output).unwrap(), 1.5);
        assert_eq!(iperf3_bytes(output).unwrap(), 9);
    }

    #[test]
    fn wrk_is_taken_without_errors_only() {
        let output = "  1208 requests in 1.00s, 1.01MB read\nRequests/sec:   1207.50\n";
        assert_eq!(wrk_requests(output).unwrap(), (1208, 1207.5));
        let error = format!("{output}  Socket errors: connect 0, read 1, write 0, timeout 0\n");
        assert!(wrk_requests(&error).is_err());
        assert!(wrk_requests("unable to connect").is_err());
    }

    #[test]
    fn redis_and_our_programs_say_what_they_counted() {
        let output = "\"test\",\"rps\",\"avg\"\n\"GET\",\"81300.81\",\"0.3\"\n";
        assert_eq!(redis_get(output).unwrap(), 81300.81);
        assert!(redis_get("Error: connection refused").is_err());
        assert_eq!(plain("messages 400 seconds 0.5\n", "messages").unwrap(), (400, 0.5));
        assert_eq!(plain_sleeps("messages 400 seconds 0.5 sleeps 17\n").unwrap(), 17);
        assert_eq!(iceoryx2("half a round trip: 0.25 us\n").unwrap(), 0.25);
    }

    #[test]
    fn a_failed_run_is_an_error_with_its_words() {
        assert!(sockperf_p50("sockperf: ERROR: connection refused").is_err());
        let error = iperf3_gbit_per_s(r#"{"error":"unable to connect"}"#).unwrap_err();
        assert!(error.to_string().contains("unable to connect"));
    }
}
