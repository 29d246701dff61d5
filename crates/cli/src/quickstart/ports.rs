//! Ports for a node that is started for a moment: the usual ones if they are free.

use base::env::Env;

use crate::failure::{Failure, Outcome};

/// Where to serve; 0 lets the system choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) kafka: u16,
    pub(super) http: u16,
}

const USUAL: Ports = Ports { kafka: 9092, http: 9644 };

/// Looks which of the usual ports are free and says so where one is not.
pub(super) async fn choose(env: &Env) -> Outcome<Ports> {
    Ok(Ports { kafka: free(env, USUAL.kafka).await?, http: free(env, USUAL.http).await? })
}

async fn free(env: &Env, port: u16) -> Outcome<u16> {
    let address = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port));
    match env.network.listen(address).await {
        Ok(_) => Ok(port),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            tell!("port {port} is taken: another one is used");
            Ok(0)
        }
        Err(error) => Err(Failure::new(format!("cannot listen on {address}: {error}"))),
    }
}
