//! Prints the OpenAPI document of docs/, from the types and handlers of the API.

fn main() {
    print!("{}", sessiond::api::describe());
}
