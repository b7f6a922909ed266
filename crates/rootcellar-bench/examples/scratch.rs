fn main() {
    let a: Vec<String> = std::env::args().collect();
    rootcellar_bench::figures(std::path::Path::new(&a[1]), &a[2]);
}
