//! Exports what `src/entropy.rs` stands in for, so that libraries that look it up at run time find
//! it too.

fn main() {
    println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=getrandom");
    println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=getentropy");
    println!("cargo:rerun-if-changed=build.rs");
}
