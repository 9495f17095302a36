import com.nimbusds.jose.JOSEException;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.BadJOSEException;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.text.ParseException;

/** M2 with nimbus-jose-jwt: 401 for an invalid token, 403 for a token without the marker. */
public final class M2 {
    public static void main(String[] arguments) throws Exception {
        JWKSource<SecurityContext> keys =
                JWKSourceBuilder.create(URI.create(System.getenv("JWKS")).toURL()).build();
        var tokens = new DefaultJWTProcessor<SecurityContext>();
        tokens.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.RS256, keys));

        var server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/whoami", exchange -> {
            exchange.sendResponseHeaders(status(exchange.getRequestHeaders().getFirst("Authorization"), tokens), -1);
            exchange.close();
        });
        server.start();
        System.out.println("listening on http://127.0.0.1:" + server.getAddress().getPort());
    }

    private static int status(String authorization, DefaultJWTProcessor<SecurityContext> tokens) {
        if (authorization == null || !authorization.startsWith("Bearer ")) {
            return 401;
        }
        try {
            var claims = tokens.process(authorization.substring("Bearer ".length()), null);
            return "microservice".equals(claims.getClaim("source")) ? 200 : 403;
        } catch (ParseException | BadJOSEException | JOSEException err) {
            System.err.println(err.getMessage());
            return 401;
        }
    }
}
