// A real OpenID Connect provider on loopback: node provider.mjs PORT
//
// Its clients get tokens for themselves (RFC 6749 4.4); a client's id is the account it stands for. The scope chooses the
// form: `signed` gives a JWT (RFC 9068) for the audience https://mail.example.test, `opaque` one that must be asked for.
import { Provider } from 'oidc-provider'

const port = Number(process.argv[2])
const client = (client_id) => ({
  client_id,
  client_secret: 'secret',
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
})
const audience = (resource) => ({
  audience: resource,
  scope: 'mail',
  accessTokenTTL: 600,
  accessTokenFormat: resource.endsWith('/opaque') ? 'opaque' : 'jwt',
})
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: ['alice@example.test', 'nobody@example.test', 'mailserver'].map(client),
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    resourceIndicators: { enabled: true, getResourceServerInfo: (_, resource) => audience(resource) },
  },
})
provider.listen(port, '127.0.0.1', () => console.log('ready'))
