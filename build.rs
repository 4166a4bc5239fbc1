//! Lays Chart.js out for `src/http/page`, from a crate that carries it.
//!
//! The crate is a small one; that it carries Chart.js's own bytes and nothing else is checked here, by the digest of
//! `dist/chart.umd.js` in npm's package of that version.

use std::{env, error::Error, fs, path::Path};

use rustlavel_chart::plugin::{CHART_JS, CHART_JS_VERSION};
use sha2::{Digest, Sha256};

/// Of `dist/chart.umd.js` in npm's chart.js 4.5.1.
const SHA256: &str = "ecc3cd1eeb8c34d2178e3f59fd63ec5a3d84358c11730af0b9958dc886d7652a";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let digest: String = Sha256::digest(CHART_JS).iter().map(|byte| format!("{byte:02x}")).collect();
    if digest != SHA256 {
        let fault = format!("rustlavel-chart has another Chart.js ({CHART_JS_VERSION}, SHA-256 {digest}) than npm has");
        return Err(fault.into());
    }
    // Its last line names a source map that isn't served.
    let script = CHART_JS.split("\n//# sourceMappingURL=").next().unwrap_or(CHART_JS);
    fs::write(Path::new(&env::var("OUT_DIR")?).join("chart.js"), script)?;
    Ok(())
}
