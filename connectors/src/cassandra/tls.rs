//! TLS: the node's certificate is checked against the given roots, and its name, which is the node's IP address.

use std::{path::Path, sync::Arc};

use dataflows::port::BoxError;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{CassandraError, Settings};

/// What sessions need for TLS; `None` where none is wanted.
pub(super) fn context(settings: &Settings) -> Result<Option<Arc<ClientConfig>>, CassandraError> {
    if !settings.tls {
        return Ok(None);
    }
    let Some(path) = &settings.ca_file else {
        return Err(CassandraError::Settings {
            key: "ca_file",
            what: "tls needs the certificates to trust; those of the system are not read".to_owned(),
        });
    };
    let roots = roots(path).map_err(|cause| CassandraError::Unreadable { path: path.clone(), cause })?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|cause| CassandraError::Settings { key: "tls", what: cause.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(Arc::new(config)))
}

fn roots(path: &Path) -> Result<RootCertStore, BoxError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        return Err("there is no certificate (PEM) in it".into());
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cassandra::settings::sample;

    #[test]
    fn tls_needs_a_file_with_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let with = |ca_file| context(&Settings { tls: true, ca_file, ..sample() });
        assert!(matches!(with(None), Err(CassandraError::Settings { key: "ca_file", .. })));
        assert!(matches!(with(Some(path.clone())), Err(CassandraError::Unreadable { .. })));
        fs::write(&path, "nothing").unwrap();
        assert!(matches!(with(Some(path.clone())), Err(CassandraError::Unreadable { .. })));
        assert!(context(&sample()).unwrap().is_none());
    }
}
