fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=inventory.proto");
    let files = protox::compile(["inventory.proto"], ["."])?;
    Ok(tonic_prost_build::compile_fds(files)?)
}
