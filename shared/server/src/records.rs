//! TLS, whole records at a time.
//!
//! rustls takes 4 KiB in, looks for a record, and moves what it has of one that isn't whole yet. A review is one record of
//! some 5 to 16 KiB, so all bytes that have arrived are handed over before rustls looks.

use std::io::{self, BufRead};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// An established connection.
#[derive(Debug)]
pub(super) struct Records(TlsStream<BufReader<TcpStream>>);

impl Records {
    pub(super) fn new(stream: TlsStream<BufReader<TcpStream>>) -> Self {
        Self(stream)
    }

    /// Decrypts what has arrived until there is something to read.
    fn poll_decrypt(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (tcp, session) = self.0.get_mut();
        let mut tcp = Pin::new(tcp);
        while session.wants_read() {
            let mut arrived = ready!(tcp.as_mut().poll_fill_buf(cx))?;
            let before = arrived.len();
            // Nothing at all says that this is the end; an error, that there is no room before the next look.
            while let Ok(1..) = session.read_tls(&mut arrived)
                && !arrived.is_empty()
            {}
            let taken = before - arrived.len();
            tcp.as_mut().consume(taken);
            session
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if taken == 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Records {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Err(error) = ready!(self.poll_decrypt(cx)) {
            // With the alert that says what was wrong; a flush would only return the error.
            let _ = Pin::new(&mut self.0).poll_shutdown(cx);
            return Poll::Ready(Err(error));
        }
        let mut plaintext = self.0.get_mut().1.reader();
        let record = plaintext.fill_buf()?;
        let record = record.get(..buf.remaining()).unwrap_or(record);
        let read = record.len();
        buf.put_slice(record);
        plaintext.consume(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Records {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::CertifiedKey;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::{TlsAcceptor, TlsConnector, client};

    use super::*;
    use crate::limits::RECORD;

    async fn connect() -> (client::TlsStream<TcpStream>, Records) {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into())
            .unwrap();
        // A client that goes away with tickets unread resets the connection.
        server.send_tls13_tickets = 0;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = BufReader::with_capacity(RECORD, listener.accept().await.unwrap().0);
        let connector = TlsConnector::from(Arc::new(client));
        let (client, server) = tokio::join!(
            connector.connect("localhost".try_into().unwrap(), tcp),
            TlsAcceptor::from(Arc::new(server)).accept(accepted)
        );
        (client.unwrap(), Records::new(server.unwrap()))
    }

    #[tokio::test]
    async fn records_of_every_length_come_through() {
        let (mut client, mut server) = connect().await;
        let sent: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
        let expected = sent.clone();
        let sending = tokio::spawn(async move {
            let mut rest = &*sent;
            for length in [1, 16_384, 2, 16_383, 4_096, 4_095, 40_000, 12_000, 3].iter().cycle() {
                let (piece, after) = rest.split_at((*length).min(rest.len()));
                client.write_all(piece).await.unwrap();
                client.flush().await.unwrap();
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            client.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        sending.await.unwrap();
        assert!(received == expected);
    }

    #[tokio::test]
    async fn an_end_without_a_word_is_an_error_after_what_came_before_it() {
        let (mut client, mut server) = connect().await;
        client.write_all(b"half a rev").await.unwrap();
        client.flush().await.unwrap();
        drop(client);
        let mut received = Vec::new();
        let error = server.read_to_end(&mut received).await.unwrap_err();
        assert_eq!((error.kind(), &*received), (io::ErrorKind::UnexpectedEof, &b"half a rev"[..]));
    }

    #[tokio::test]
    async fn what_is_no_record_is_answered_by_an_alert() {
        let (mut client, mut server) = connect().await;
        client
            .get_mut()
            .0
            .write_all(b"\x17\x03\x03\x00\x20this was never encrypted by any one")
            .await
            .unwrap();
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let answer = client.read_u8().await.unwrap_err();
        assert!(answer.to_string().contains("BadRecordMac"), "{answer}");
    }
}
